/* fuzz_config: any bytes as config.json and as generation_config.json. What is accepted is a config in
 * range, whose RoPE tables can be built. */
#include <stdint.h>
#include <string.h>

#include "model/folder_config.h"
#include "model/rope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void use_config(const struct model_config *config)
{
    double frequency[MODEL_MAX_ROPE_PAIRS];
    float factors[MODEL_MAX_ROPE_PAIRS];
    ASSERT(config->rope.dims / 2 <= MODEL_MAX_ROPE_PAIRS && config->n_layers >= 1);
    ASSERT(config->n_eos >= 0 && config->n_eos <= MODEL_MAX_EOS);
    ASSERT(config->n_heads % config->n_kv_heads == 0 && config->experts.n_used <= config->experts.n);
    rope_frequencies(config, NULL, frequency);
    if (config->rope.scaling == ROPE_SCALING_LLAMA3) {
        rope_llama3_factors(config, factors);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct model_config config = { .n_vocab = 0 };
    struct model_hints hints;
    json_t *root;
    if (folder_json_parse("input", data, n_bytes, &root) != STATUS_OK) {
        ASSERT(strlen(status_message()) > 0);
        return 0;
    }
    if (folder_config_read("input", root, &config) == STATUS_OK) {
        use_config(&config);
        ASSERT(folder_config_eos("input", root, &config) == STATUS_OK); /* once more: nothing new */
    } else {
        ASSERT(strlen(status_message()) > 0);
    }
    if (folder_config_hints("input", root, &hints) == STATUS_OK) {
        ASSERT(hints.top_k >= -1);
    }
    json_decref(root);
    return 0;
}
