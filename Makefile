# Tandem. `make help` is the contents page.
#
# Variants by variable: SAN=address|thread|undefined, DEBUG=1. Output: build/<variant>/.

CC      ?= gcc
SAN     ?=
DEBUG   ?=
WERROR  ?=
VARIANT := $(or $(SAN),$(if $(DEBUG),debug,release))
BUILD   := build/$(VARIANT)
ARCH    := $(shell uname -m)

CFLAGS_WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
ifeq ($(CI),true)
CFLAGS_WARN += -Werror
endif
# Exact first: no contraction, no fast-math. The two -fno flags change no result; they let loops
# over mathx vectorise.
CFLAGS_NUM := -ffp-contract=off -fno-math-errno -fno-trapping-math
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE $(if $(DEBUG),-O0,-O2) -g -I. -Iinclude -MMD -MP -pthread \
              $(CFLAGS_WARN) $(CFLAGS_NUM) $(CFLAGS)
ifeq ($(SAN),address)
CFLAGS_ALL += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifeq ($(SAN),undefined)
CFLAGS_ALL += -fsanitize=undefined -fno-sanitize-recover=all
endif
ifeq ($(SAN),thread)
CFLAGS_ALL += -fsanitize=thread -fno-omit-frame-pointer
endif
LDLIBS := -lm -pthread
LIBS_TEXT := -lpcre2-8 -lutf8proc
LIBS_CLI := -ljansson

# Rooms of the engine core: libc, libm and pthreads alone.
CORE_ROOMS := base backend backend/cpu model sampling kvcache batching verify target draft scheduler
CORE_SRC := $(foreach room,$(CORE_ROOMS),$(wildcard $(room)/*.c))
TEXT_SRC := $(wildcard tokenizer/*.c)
CLI_SRC  := $(wildcard cli/*.c bench/*.c)

ifneq ($(ARCH),x86_64)
CORE_SRC := $(filter-out %_avx2.c %_avx512.c %_fma.c,$(CORE_SRC))
endif

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
CORE_LIB := $(BUILD)/libtandem-core.a
LIB      := $(BUILD)/libtandem.a
TANDEM   := $(BUILD)/tandem

# Instruction sets per file, chosen at run time.
ISA_FLAGS_scalar :=
ISA_FLAGS_fma    := -mavx2 -mfma -mf16c -fno-tree-vectorize
ISA_FLAGS_avx2   := -mavx2 -mfma -mf16c -mbmi2 -O3
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c \
                    -mbmi2 -mprefer-vector-width=512 -O3
isa_of = $(if $(filter %_avx512,$*),avx512,$(if $(filter %_avx2,$*),avx2,$(if $(filter %_fma,$*),fma,scalar)))

.DEFAULT_GOAL := all
all: $(TANDEM)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(ISA_FLAGS_$(isa_of)) -c $< -o $@

$(CORE_LIB): $(call obj,$(CORE_SRC))
	@rm -f $@ && ar rcs $@ $^
$(LIB): $(call obj,$(CORE_SRC) $(TEXT_SRC))
	@rm -f $@ && ar rcs $@ $^
$(TANDEM): $(call obj,$(CLI_SRC)) $(LIB)
	$(CC) $(CFLAGS_ALL) $^ -o $@ $(LDLIBS) $(LIBS_TEXT) $(LIBS_CLI)

# One test program per file tests/test_NAME.c.
TESTS := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
TEST_SUPPORT := $(filter-out $(wildcard tests/test_*.c),$(wildcard tests/*.c))
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(call obj,$(TEST_SUPPORT)) $(LIB)
	$(CC) $(CFLAGS_ALL) $(filter %.o,$^) $(LIB) -o $@ $(LDLIBS) $(LIBS_TEXT) $(LIBS_CLI) -lcmocka

.PHONY: all clean
clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
