/* subjects: which targets, and which drafts of theirs. The default pair has trained weights and text;
 * the folders are two families whose logits other programs computed; the planted pairs are long, and
 * one has experts. */
#include <string.h>
#include <unistd.h>

#include "tests/equivalence/equivalence.h"
#include "tests/golden.h"

#define PAIR "synth:pair=tiny,q8_0,draft=tiny,agree=0.8,seed=5"
#define PAIR_DRAFT PAIR ",role=draft"

/* Around pages of 16 and 64, and around 256, 512 and 2048 positions: every one of them is crossed by a
 * prompt, by a chunk of one, or by what is written behind it. */
static const int32_t SHORT[MAX_QUESTIONS] = { 1, 15, 16, 17, 33, 63, 64, 65, 100, 5, 128, 40, 150, 2, 200, 240 };
static const int32_t MIDDLE[MAX_QUESTIONS] = { 1, 250, 16, 505, 33, 255, 64, 257, 100, 515, 128, 5, 500, 2, 270, 48 };
static const int32_t LONG[MAX_QUESTIONS] = { 1, 2040, 16, 250, 33, 505, 64, 2050, 100, 255, 128, 515, 5, 500, 2030, 48 };

static struct subject *add(struct subjects *subjects, const char *name, const char *target)
{
    struct subject *subject = &subjects->subject[subjects->n++];
    *subject = (struct subject){ .name = name, .target = target, .n_ids = 300,
                                 .drafts = { "none", "ngram", "suffix", "layerskip" } };
    return subject;
}

/* A model drafts alone, in a list, ahead, and elsewhere. */
static void add_model(struct subject *subject, const char *model, const char *list)
{
    subject->drafts[DRAFT_MODEL] = model;
    subject->drafts[DRAFT_MODEL + 1] = list;
    subject->drafts[DRAFT_AHEAD] = subject->drafts[DRAFT_AHEAD_MISS] = model;
    subject->drafts[DRAFT_AHEAD_HALF] = list;
    subject->drafts[DRAFT_REMOTE] = model;
}

static void add_default(struct subjects *subjects)
{
    struct subject *subject = add(subjects, "stories15M", "models/stories15M.Q8_0.gguf");
    add_model(subject, "models/stories-draft.gguf", "models/stories-draft.gguf,suffix");
    subject->drafts[3] = "layerskip:5";
    subject->has_text = true;
    subject->context = 256;
    subject->lengths = SHORT;
}

static void add_folder(struct subjects *subjects, const char *name, const char *relative)
{
    char *path = subjects->path[subjects->n], *list = path + SUBJECT_PATH_CAP;
    if (!golden_path(relative, path, SUBJECT_PATH_CAP - 8) || access(path, R_OK) != 0) {
        printf("skipped: %s, there is no golden data\n", name);
        return;
    }
    struct subject *subject = add(subjects, name, path);
    strcpy(list, path);
    strcat(list, ",suffix");
    add_model(subject, path, list);
    subject->drafts_itself = true;
    subject->context = 640;
    subject->lengths = MIDDLE;
}

static void add_pair(struct subjects *subjects)
{
    struct subject *subject = add(subjects, "planted-pair", PAIR);
    add_model(subject, PAIR_DRAFT, "suffix," PAIR_DRAFT);
    subject->context = 2304;
    subject->lengths = LONG;
}

static void add_experts(struct subjects *subjects)
{
    struct subject *subject = add(subjects, "experts", "synth:tiny-moe,q8_0,seed=3");
    add_model(subject, "synth:tiny-moe,q8_0,seed=3", "suffix,synth:tiny-moe,q4_0,seed=3");
    subject->drafts_itself = true;
    subject->context = 640;
    subject->lengths = MIDDLE;
}

void subjects_find(struct subjects *subjects)
{
    subjects->n = 0;
    add_default(subjects);
    add_folder(subjects, "llama-gqa", "golden/models/llama-gqa");
    add_folder(subjects, "qwen3", "golden/models/qwen3");
    add_pair(subjects);
    add_experts(subjects);
}
