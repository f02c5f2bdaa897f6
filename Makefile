# Tandem. `make help` is the contents page, made from the `##` comments below.
#
# Output goes to build/<variant>/. Variants by variable: SAN=address|undefined|thread, DEBUG=1, CUDA=1
# (GPUs as devices; wants nvcc; with NCCL=1 ranks of them). MPI=1 makes programs and libraries in build/mpi, of the objects of
# build/release and one that speaks MPI.
# Warnings are errors with WERROR=1 or CI=true. A change of flags rebuilds what it touches. V=1 shows
# the commands.

ifeq ($(origin CC),default)
CC      := gcc
endif
ifeq ($(origin CXX),default)
CXX     := g++
endif
AR      ?= ar
CUDA    ?=
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC))))
NVCC    ?= nvcc
MPI     ?=
MPICC   ?= mpicc
NCCL    ?=
SAN     ?=
DEBUG   ?=
MUTANTS ?=
WERROR  ?=
PREFIX  ?= /usr/local
DESTDIR ?=
ARGS    ?=
FUZZ_SECONDS ?= 60
BENCHES ?= decode rows prefill kernels scheduler

VARIANT := $(or $(SAN),$(if $(MUTANTS),mutants,$(if $(DEBUG),debug,$(if $(CUDA),cuda,$(if $(MPI),mpi,release)))))
BUILD   := build/$(VARIANT)
OBJECTS := $(if $(filter mpi,$(VARIANT)),build/release,$(BUILD))
LINK     = $(if $(MPI),$(MPICC),$(CC))
ARCH    := $(shell uname -m)
# Phases that compile run as a make of their own with as many jobs as there are cores, unless the
# caller chose a number.
CORES   := $(shell nproc 2>/dev/null || echo 1)
JOBS     = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(CORES))
SUBMAKE  = +@$(MAKE) --no-print-directory $(JOBS)

# A word per file instead of its command line; nothing with -s.
SILENT   = $(findstring s,$(firstword -$(MAKEFLAGS)))
say      = $(if $(V)$(SILENT),,@printf '%-8s %s\n' '$(1)' '$(2)')
SHOW    := $(if $(V),,@)

# ---- flags ----
CFLAGS_WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
ifneq ($(filter true 1,$(CI) $(WERROR)),)
CFLAGS_WARN += -Werror
endif
ifeq ($(SAN),fuzz)
CFLAGS_WARN := -Wall # gcc's opinion counts; clang is here for its fuzzer
endif
# Exact first: no contraction, no fast-math. The two -fno flags change no result; they let loops
# over mathx vectorise.
CFLAGS_NUM := -ffp-contract=off -fno-math-errno -fno-trapping-math
CFLAGS_SAN_address   := -DTANDEM_INSTRUMENTED -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_SAN_undefined := -DTANDEM_INSTRUMENTED -fsanitize=undefined -fno-sanitize-recover=all
CFLAGS_SAN_thread    := -DTANDEM_INSTRUMENTED -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_SAN_fuzz      := -DTANDEM_INSTRUMENTED -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ifneq ($(filter-out address undefined thread fuzz,$(SAN)),)
$(error SAN=$(SAN) is not known; there are address, undefined and thread)
endif
CFLAGS_MUTANTS := $(if $(MUTANTS),-DTANDEM_MUTANTS) # bugs planted on purpose, see base/mutant.h
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE $(if $(DEBUG),-O0,-O2) -g -I. -Iinclude -I$(OBJECTS)/include \
              -MMD -MP -pthread $(CFLAGS_WARN) $(CFLAGS_NUM) $(CFLAGS_SAN_$(SAN)) $(CFLAGS_MUTANTS) $(CFLAGS)
LDLIBS    := $(if $(NCCL),-L$(CUDA_HOME)/lib -lnccl) $(if $(CUDA),-L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt) -lm -pthread
LIBS_TEXT := -Wl,--as-needed -lpcre2-8 -lutf8proc -ljansson # tokenizers and model folders
LIBS_CLI  := -ljansson
# Frames are written by msgpack-c's header; a test reads them with its library, whatever that is called here.
LIBS_MSGPACK := $(if $(wildcard /usr/lib/*/libmsgpack-c.so),-lmsgpack-c,-lmsgpackc)

# Device code, backend/cuda: compiled by nvcc with CUDA=1; by $(CXX) for the emulation of the tests, which
# no sanitizer of threads can follow from stack to stack.
CFLAGS_SIMT := -std=c++17 $(if $(DEBUG),-O0,-O2) -g -I. -Itests/simt/include -MMD -MP -Wall -Wextra -Wshadow \
               $(if $(filter -Werror,$(CFLAGS_WARN)),-Werror) -Wno-unknown-pragmas $(CFLAGS_NUM) \
               -fno-exceptions -fno-rtti -fno-threadsafe-statics $(if $(filter-out thread,$(SAN)),$(CFLAGS_SAN_$(SAN)))
# No C++ library is linked; the statics that a launch makes hold the same address whichever thread writes it.
# IEEE rounding, fused where the source says so. Native code for sm_80 and sm_90, PTX for what comes after.
CFLAGS_CUDA := -std=c++17 -O3 -lineinfo -I. --fmad=false --ftz=false --prec-div=true --prec-sqrt=true \
               --Werror all-warnings -Xcompiler -Wall,-ffp-contract=off,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics \
               --compress-mode=size -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]

# Instruction sets per file, chosen at run time.
ISA_FLAGS_scalar :=
ISA_FLAGS_fma    := -mavx2 -mfma -mf16c -fno-tree-vectorize
ISA_FLAGS_avx2   := -mavx2 -mfma -mf16c -mbmi2 -O3
ISA_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c \
                    -mbmi2 -mprefer-vector-width=512 -O3
ifeq ($(SAN),fuzz) # parsers are fuzzed; instrumented kernels would take minutes to compile
ISA_FLAGS_avx2   += -O1 -fno-sanitize=all
ISA_FLAGS_avx512 += -O1 -fno-sanitize=all
endif
isa_of = $(or $(patsubst _%,%,$(filter _fma _avx2 _avx512,_$(lastword $(subst _, ,$*)))),scalar)

# ---- what is built from what ----
# Rooms of the engine core: libc, libm and pthreads alone. Where the core does without text, a stub
# file (scheduler/text_none.c, model/folder_none.c, draft/remote_none.c) stands in for the real one.
CORE_ROOMS := base backend backend/cpu model sampling kvcache batching verify target draft scheduler
ROOM_SRC := $(foreach room,$(CORE_ROOMS),$(wildcard $(room)/*.c))
ifneq ($(ARCH),x86_64)
ROOM_SRC := $(filter-out %_avx2.c %_avx512.c %_fma.c,$(ROOM_SRC))
endif
ifeq ($(MUTANTS),)
ROOM_SRC := $(filter-out base/mutant.c,$(ROOM_SRC))
endif
ROOM_SRC := $(filter-out $(if $(MPI),backend/comm_mpi_none.c,backend/comm_mpi.c) \
                         $(if $(NCCL),backend/comm_nccl_none.c,backend/comm_nccl.c),$(ROOM_SRC))
ifeq ($(CUDA),)
ifneq ($(NCCL),)
$(error NCCL=1 is for devices: make CUDA=1 NCCL=1)
endif
endif
FULL_ONLY := scheduler/text.c model/folder.c model/folder_config.c model/folder_files.c \
             model/folder_names.c model/folder_json.c model/safetensors.c \
             $(filter-out draft/remote_none.c,$(wildcard draft/remote*.c draft/worker*.c)) scheduler/engine_worker.c
CORE_ONLY := scheduler/text_none.c model/folder_none.c draft/remote_none.c
# The real runtime instead of its stub, or the other way round.
CUDA_SRC := $(wildcard backend/cuda/*.cu)
CUDA_OBJ := $(patsubst %.cu,$(BUILD)/%.o,$(CUDA_SRC)) $(patsubst %.c,$(BUILD)/%.o,$(wildcard backend/cuda/*.c))
ifneq ($(CUDA),)
ROOM_SRC := $(filter-out backend/cuda_none.c,$(ROOM_SRC))
endif
CORE_SRC := $(filter-out $(FULL_ONLY),$(ROOM_SRC))
LIB_SRC  := $(filter-out $(CORE_ONLY),$(ROOM_SRC)) $(wildcard tokenizer/*.c rpc/*.c)
CLI_SRC  := $(wildcard cli/*.c bench/*.c)

obj = $(patsubst %.c,$(OBJECTS)/%.o,$(1))
CORE_LIB := $(BUILD)/libtandem-core.a
LIB      := $(BUILD)/libtandem.a
TANDEM   := $(BUILD)/tandem

TEST_SRC     := $(wildcard tests/test_*.c)
TEST_SUPPORT := $(filter-out $(TEST_SRC),$(wildcard tests/*.c))
TESTS        := $(patsubst %.c,$(BUILD)/%,$(TEST_SRC))
TEST_SCRIPTS := $(wildcard tests/test_*.sh)
SIMT_TESTS   := $(filter $(BUILD)/tests/test_simt%,$(TESTS))
SIMT_OBJ     := $(patsubst %.cu,$(BUILD)/simt/%.o,$(CUDA_SRC) $(wildcard tests/simt/*.cu)) \
                $(patsubst %.cpp,$(BUILD)/simt/%.o,$(wildcard tests/simt/*.cpp)) \
                $(patsubst %.c,$(BUILD)/simt/%.o,$(wildcard backend/cuda/*.c) backend/comm_nccl.c) $(call obj,$(wildcard tests/simt/*.c))
HAVE_CXX     := $(shell command -v $(CXX) 2>/dev/null)
EXAMPLES     := $(patsubst %.c,$(BUILD)/%,$(wildcard examples/*.c))
FUZZ_SRC     := $(wildcard fuzz/fuzz_*.c)
REPLAYS      := $(patsubst fuzz/fuzz_%.c,$(BUILD)/fuzz/replay_%,$(FUZZ_SRC))
FUZZERS      := $(patsubst fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
MUTANT_SUITES := test_kvcache test_kv_cases test_kv_model test_batch test_verify test_verify_tree \
                test_rejection test_scheduler test_scheduler_random test_tree test_draft_model \
                test_draft_layerskip test_draft_choices test_grower test_rank test_ahead test_rejection_model \
                test_batching_cases test_engine test_equivalence
CORE_CHECK   := $(BUILD)/tests/core/core_link
EQUIVALENCE  := $(BUILD)/tests/equivalence/equivalence
EQUIVALENCE_SRC := $(wildcard tests/equivalence/*.c)
EQUIVALENCE_OBJ := $(call obj,$(filter-out %/main.c,$(EQUIVALENCE_SRC)))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help deps deps-fuzz deps-mpi deps-mpi-maybe test-build-mpi all run bench test test-build test-run test-sanitize test-mpi mpi-build layers fuzz \
        fuzz-build install clean equivalence mutants \
        mutants-build FORCE

##@ Use
help: ## this page
	@awk -f tools/make_help.awk Makefile

run: deps ## install what is missing, build, write a story: make run ARGS='-p "The dragon"'
	$(SUBMAKE) all
	@$(TANDEM) run $(if $(ARGS),$(ARGS),--prompt "Once upon a time")

bench: deps ## measure against this machine's roofs: make bench BENCHES=decode ARGS=--quick
	$(SUBMAKE) all
	@for name in $(BENCHES); do $(TANDEM) bench $$name $(ARGS) || exit $$?; done

install: ## program, libraries, header and default model to PREFIX (/usr/local)
	$(SUBMAKE) all
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/lib' '$(DESTDIR)$(PREFIX)/include' \
	    '$(DESTDIR)$(PREFIX)/share/tandem/models' '$(DESTDIR)$(PREFIX)/share/doc/tandem'
	install -m 755 $(TANDEM) '$(DESTDIR)$(PREFIX)/bin/'
	install -m 644 $(LIB) $(CORE_LIB) '$(DESTDIR)$(PREFIX)/lib/'
	install -m 644 include/tandem.h '$(DESTDIR)$(PREFIX)/include/'
	install -m 644 models/* '$(DESTDIR)$(PREFIX)/share/tandem/models/'
	install -m 644 README.md LICENSE '$(DESTDIR)$(PREFIX)/share/doc/tandem/'

##@ Build
deps: ## install the libraries that are missing (Debian and its kin, with sudo unless root)
	@CC='$(CC)' tools/deps build

all: $(TANDEM) $(CORE_LIB) ## program and libraries, in build/<variant>/; CUDA=1: with GPUs as devices, in build/cuda/

clean: ## remove build/
	rm -rf build

##@ Test
test: deps deps-mpi-maybe ## every suite, the example, the core link check, fuzz corpora; closes with the count
	@rm -f $(BUILD)/test-build.failed
	$(SUBMAKE) -k -s test-build || { mkdir -p $(BUILD); touch $(BUILD)/test-build.failed; }
	@$(MAKE) --no-print-directory test-run

test-sanitize: deps ## the suites again under address + undefined, then thread sanitizer
	@for san in address thread; do \
	    TANDEM_TEST_QUICK=1 $(MAKE) --no-print-directory SAN=$$san test || failed=1; \
	done; test -z "$$failed"

equivalence: deps ## every draft, K, batch, page size and lack of pages against plain decoding: ARGS=--quick
	$(SUBMAKE) -s $(EQUIVALENCE)
	@$(EQUIVALENCE) $(ARGS)

test-mpi: deps deps-mpi ## ranks under mpirun against one process: more models, drafts and counts than in test
	$(SUBMAKE) -s MPI=1 mpi-build
	@TANDEM_TEST_FULL=1 tests/test_mpi.sh build/mpi/tandem

deps-mpi: ## install Open MPI, which MPI=1 needs
	@tools/deps mpi

deps-mpi-maybe: # its suite is left out, by name, where it cannot be installed
	-@command -v $(MPICC) >/dev/null || tools/deps mpi

mutants: deps ## bugs planted one at a time: which suites see which; fails if one is seen by none
	$(SUBMAKE) -s MUTANTS=1 mutants-build
	@tools/run_mutants build/mutants/tests $(MUTANT_SUITES)

layers: ## include direction, doors, sizes and forbidden calls, by tools/check_layers
	@tools/check_layers

deps-fuzz: ## install clang and its fuzzing runtime
	@tools/deps fuzz

fuzz: deps deps-fuzz ## each parser under libFuzzer for FUZZ_SECONDS (60)
	$(SUBMAKE) -s SAN=fuzz CC=clang fuzz-build
	@tools/run_fuzz build/fuzz/fuzz $(FUZZ_SECONDS)

test-build: test-build-mpi $(TANDEM) $(TESTS) $(EXAMPLES) $(REPLAYS) $(CORE_CHECK) $(if $(HAVE_CXX),$(BUILD)/gpu/gpu_parity_emulated $(BUILD)/gpu/gpu_models_emulated)

test-run:
	@tools/run_tests $(BUILD) $(TESTS) $(TEST_SCRIPTS) $(CORE_CHECK) $(EXAMPLES) $(REPLAYS)

# The release build's suites run ranks too, where there is an MPI. After $(TANDEM): the objects are the same.
test-build-mpi: $(TANDEM)
ifeq ($(VARIANT),release)
	@if command -v $(MPICC) >/dev/null; then $(MAKE) --no-print-directory MPI=1 mpi-build; fi
endif

mpi-build: $(TANDEM)

fuzz-build: $(FUZZERS)

mutants-build: $(addprefix $(BUILD)/tests/,$(MUTANT_SUITES))

# ---- rules ----
# Rewritten only when its content changes, so that objects depend on the flags they were built with.
$(OBJECTS)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CC) $(CFLAGS_ALL) | $(ISA_FLAGS_fma) | $(ISA_FLAGS_avx2) | $(ISA_FLAGS_avx512)' > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(BUILD)/flags-device: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(CXX) $(CFLAGS_SIMT) | $(NVCC) $(CFLAGS_CUDA)' > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# The commit that a result was measured at; "unknown" outside a checkout.
$(OBJECTS)/include/tandem_commit.h: FORCE
	@mkdir -p $(@D)
	@commit=$$(git describe --always --dirty --exclude='*' 2>/dev/null || echo unknown); \
	    printf '#define TANDEM_COMMIT "%s"\n' "$$commit" > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(BUILD)/backend/comm_nccl.o $(BUILD)/backend/cuda/%.o: CFLAGS_ROOM := -isystem $(CUDA_HOME)/include
$(OBJECTS)/backend/comm_mpi.o: private CC := $(MPICC)
$(OBJECTS)/%.o: %.c $(OBJECTS)/flags | $(OBJECTS)/include/tandem_commit.h
	@mkdir -p $(@D)
	$(call say,compile,$<)
	$(SHOW)$(CC) $(CFLAGS_ALL) $(CFLAGS_ROOM) $(ISA_FLAGS_$(isa_of)) -c $< -o $@

CORE_OBJ := $(call obj,$(CORE_SRC)) $(if $(CUDA),$(CUDA_OBJ))
LIB_OBJ  := $(call obj,$(LIB_SRC)) $(if $(CUDA),$(CUDA_OBJ))
$(CORE_LIB): $(CORE_OBJ)
	$(call say,archive,$@)
	@mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $(CORE_OBJ)
$(LIB): $(LIB_OBJ)
	$(call say,archive,$@)
	@mkdir -p $(@D) && rm -f $@ && $(AR) rcs $@ $(LIB_OBJ)
$(TANDEM): $(call obj,$(CLI_SRC)) $(LIB)
	$(call say,link,$@)
	@mkdir -p $(@D)
	$(SHOW)$(LINK) $(CFLAGS_ALL) $(call obj,$(CLI_SRC)) $(LIB) -o $@ $(LDLIBS) $(LIBS_TEXT) $(LIBS_CLI)

# One test program per file tests/test_NAME.c. TEST_OBJ: what one of them needs of the program itself.
PROGRAM_TESTS := $(addprefix $(BUILD)/tests/,test_conversion test_timeline)
$(PROGRAM_TESTS): TEST_OBJ := $(call obj,$(filter-out cli/main.c,$(CLI_SRC)))
$(PROGRAM_TESTS): $(call obj,$(filter-out cli/main.c,$(CLI_SRC)))
$(BUILD)/tests/test_rpc: TEST_OBJ := $(LIBS_MSGPACK)
$(BUILD)/tests/test_equivalence: TEST_OBJ := $(EQUIVALENCE_OBJ)
$(BUILD)/tests/test_equivalence: $(EQUIVALENCE_OBJ)
$(BUILD)/tests/test_%: $(BUILD)/tests/test_%.o $(call obj,$(TEST_SUPPORT)) $(LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $< $(call obj,$(TEST_SUPPORT)) $(TEST_OBJ) $(LIB) -o $@ \
	    $(LDLIBS) $(LIBS_TEXT) $(LIBS_CLI) -lcmocka

$(EQUIVALENCE): $(call obj,$(EQUIVALENCE_SRC)) $(BUILD)/tests/golden.o $(LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $(call obj,$(EQUIVALENCE_SRC)) $(BUILD)/tests/golden.o $(LIB) -o $@ $(LDLIBS) $(LIBS_TEXT) -lcmocka

# Device code runs in an emulation. Linked as C: nothing of C++'s library is used.
ifneq ($(HAVE_CXX),)
$(SIMT_TESTS): TEST_OBJ := $(SIMT_OBJ)
$(SIMT_TESTS): $(SIMT_OBJ)
else
$(SIMT_TESTS): FORCE
	@mkdir -p $(@D)
	@printf '#!/bin/sh\necho "ok - $(@F) # SKIP no C++ compiler to run device code with"\n' > $@
	@chmod +x $@
endif
define simt_compile
@mkdir -p $(@D)
$(call say,simt,$<)
$(SHOW)$(CXX) $(CFLAGS_SIMT) -x c++ -c $< -o $@
endef
$(BUILD)/simt/%.o: %.cu $(BUILD)/flags-device
	$(simt_compile)
$(BUILD)/simt/%.o: %.cpp $(BUILD)/flags-device
	$(simt_compile)
$(BUILD)/simt/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,simt,$<)
	$(SHOW)$(CC) $(CFLAGS_ALL) -Itests/simt/include -c $< -o $@
$(BUILD)/%.o: %.cu $(BUILD)/flags-device
	@mkdir -p $(@D)
	$(call say,nvcc,$<)
	$(SHOW)$(NVCC) $(CFLAGS_CUDA) -MD -MF $(@:.o=.d) -c $< -o $@

$(BUILD)/examples/%: $(BUILD)/examples/%.o $(LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $< $(LIB) -o $@ $(LDLIBS) $(LIBS_TEXT)

# Every object of the core, needed or not, and nothing but libm and pthreads to resolve them.
$(CORE_CHECK): $(BUILD)/tests/core/core_link.o $(CORE_LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $< -Wl,--whole-archive $(CORE_LIB) -Wl,--no-whole-archive -o $@ $(LDLIBS)

$(BUILD)/fuzz/replay_%: $(BUILD)/fuzz/fuzz_%.o $(BUILD)/fuzz/replay.o $(LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $< $(BUILD)/fuzz/replay.o $(LIB) -o $@ $(LDLIBS) $(LIBS_TEXT)
$(BUILD)/fuzz/fuzz_%: $(BUILD)/fuzz/fuzz_%.o $(LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) -fsanitize=fuzzer $< $(LIB) -o $@ $(LDLIBS) $(LIBS_TEXT)

include gpu/gpu.mk

-include cli/version.mk
-include $(shell find $(OBJECTS) -name '*.d' 2>/dev/null)
