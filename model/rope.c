/* rope: frequencies of each pair under the published scalings.
 *
 * linear: positions divided by a factor (Chen et al., "Extending Context Window of LLMs via Positional
 * Interpolation", 2023). llama3: long waves divided, short ones kept, a ramp between (Llama 3.1 model
 * card). yarn: the ramp over dimensions of Peng et al., "YaRN", 2023, section 3.2, with the attention
 * factor 0.1 ln s + 1.
 */
#include "model/rope.h"

#include <math.h>

static const double TWO_PI = 6.283185307179586476925286766559;

static double base_frequency(const struct model_config *config, int32_t pair)
{
    return pow(config->rope.base, -2.0 * pair / config->rope.dims);
}

static double llama3_frequency(const struct model_config *config, double frequency)
{
    const double wave = TWO_PI / frequency, original = config->rope.original_context;
    const double low = config->rope.low_freq_factor, high = config->rope.high_freq_factor;
    if (wave < original / high) {
        return frequency;
    }
    if (wave > original / low) {
        return frequency / config->rope.factor;
    }
    const double smooth = (original / wave - low) / (high - low);
    return (1.0 - smooth) * frequency / config->rope.factor + smooth * frequency;
}

/* The dimension whose wave turns n_turns times within the original context. */
static double yarn_dimension(const struct model_config *config, double n_turns)
{
    return config->rope.dims * log(config->rope.original_context / (n_turns * TWO_PI)) /
           (2.0 * log(config->rope.base));
}

static double yarn_frequency(const struct model_config *config, int32_t pair, double frequency)
{
    const double low = fmax(floor(yarn_dimension(config, config->rope.beta_fast)), 0.0);
    double high = fmin(ceil(yarn_dimension(config, config->rope.beta_slow)), config->rope.dims - 1.0);
    if (high == low) {
        high += 0.001;
    }
    const double ramp = fmin(fmax((pair - low) / (high - low), 0.0), 1.0);
    return frequency / config->rope.factor * ramp + frequency * (1.0 - ramp);
}

static double scaled_frequency(const struct model_config *config, int32_t pair)
{
    const double frequency = base_frequency(config, pair);
    switch (config->rope.scaling) {
    case ROPE_SCALING_LINEAR: return frequency / config->rope.factor;
    case ROPE_SCALING_LLAMA3: return llama3_frequency(config, frequency);
    case ROPE_SCALING_YARN: return yarn_frequency(config, pair, frequency);
    case ROPE_SCALING_NONE: break;
    }
    return frequency;
}

void rope_frequencies(const struct model_config *config, const float *factors, double *frequency)
{
    for (int32_t i = 0; i < config->rope.dims / 2; i++) {
        frequency[i] = scaled_frequency(config, i);
        if (factors) {
            frequency[i] /= (double)factors[i];
        }
    }
}

double rope_magnitude(const struct model_config *config)
{
    if (config->rope.scaling != ROPE_SCALING_YARN) {
        return 1.0;
    }
    if (config->rope.attention_factor > 0) {
        return config->rope.attention_factor;
    }
    return config->rope.factor > 1.0 ? 0.1 * log(config->rope.factor) + 1.0 : 1.0;
}

void rope_fill(const double *frequency, int32_t half, double magnitude, int32_t first, int32_t n,
               float *cos_table, float *sin_table)
{
    for (int32_t row = 0; row < n; row++) {
        float *c = cos_table + (size_t)(first + row) * (size_t)half;
        float *s = sin_table + (size_t)(first + row) * (size_t)half;
        for (int32_t i = 0; i < half; i++) {
            const double angle = (double)(first + row) * frequency[i];
            c[i] = (float)(cos(angle) * magnitude);
            s[i] = (float)(sin(angle) * magnitude);
        }
    }
}

void rope_llama3_factors(const struct model_config *config, float *factors)
{
    for (int32_t i = 0; i < config->rope.dims / 2; i++) {
        const double frequency = base_frequency(config, i);
        factors[i] = (float)(frequency / llama3_frequency(config, frequency));
    }
}
