# The suite for a machine with a GPU: parity, roofs, kernel times, in one folder that needs no compiler there.

GPU_SUITE    := build/gpu-suite
GPU_LIMIT_MB := 60
GPU_KERNELS  := rows linear linear_groups linear_float widen attention experts choose sample rank ranks hint accept
GPU_CASES    := rows linear float attention experts choose sample accept ranks
GPU_CASE_OBJ := $(GPU_CASES:%=$(BUILD)/gpu/suite_%.o)
GPU_BED_OBJ  := $(GPU_CASE_OBJ) $(call obj,gpu/parity.c gpu/bed_device.c tests/simt/bed.c backend/cuda/weight.c)
GPU_PARITY   := $(BUILD)/gpu/gpu_parity
GPU_EMULATED := $(BUILD)/gpu/gpu_parity_emulated
CUDA_HOME    ?= $(patsubst %/bin/nvcc,%,$(shell command -v $(NVCC) 2>/dev/null))
LDLIBS_CUDA  := -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt
GPU_LINK     := $(CXX) -g -pthread -static-libstdc++ -static-libgcc # launches need C++'s guards

$(BUILD)/gpu/suite_%.o: tests/test_simt_%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,compile,$<)
	$(SHOW)$(CC) $(CFLAGS_ALL) -Wno-missing-prototypes -Dmain=suite_$* -c $< -o $@

# All of it but the device: what the suite's parity program does, where there is no GPU.
GPU_EMULATED_OBJ := $(GPU_BED_OBJ) $(call obj,gpu/device_emulated.c) $(GPU_KERNELS:%=$(BUILD)/simt/backend/cuda/%.o) \
                    $(patsubst %,$(BUILD)/simt/tests/simt/%.o,simt runtime parts fiber nccl)
$(GPU_EMULATED): $(GPU_EMULATED_OBJ) $(CORE_LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $(GPU_EMULATED_OBJ) $(CORE_LIB) -o $@ $(LDLIBS) -lcmocka

GPU_PARITY_OBJ := $(GPU_BED_OBJ) $(BUILD)/gpu/device_cuda.o $(GPU_KERNELS:%=$(BUILD)/backend/cuda/%.o)
$(GPU_PARITY): $(GPU_PARITY_OBJ) $(CORE_LIB)
	$(call say,link,$@)
	$(SHOW)$(GPU_LINK) $(GPU_PARITY_OBJ) $(CORE_LIB) -o $@ -Wl,-rpath,'$$ORIGIN/lib' $(LDLIBS) -lcmocka $(LDLIBS_CUDA)

# Whole models: speeds, and where the time goes. The emulated one goes the same ways with tiny models.
GPU_MODELS          := $(BUILD)/gpu/gpu_models
GPU_MODELS_EMULATED := $(BUILD)/gpu/gpu_models_emulated
GPU_MODELS_C        := $(patsubst %,gpu/%.c,models line passes batch pairs small)
GPU_MODELS_OBJ      := $(call obj,$(GPU_MODELS_C) bench/rig.c bench/engine_run.c bench/machine.c)
GPU_SIMT_OBJ        := $(patsubst %.cu,$(BUILD)/simt/%.o,$(CUDA_SRC)) $(patsubst %.c,$(BUILD)/simt/%.o,$(wildcard backend/cuda/*.c) gpu/gaps.c) \
                       $(patsubst %.cpp,$(BUILD)/simt/%.o,$(wildcard tests/simt/*.cpp))
$(BUILD)/gpu/gaps.o: CFLAGS_ROOM := -isystem $(CUDA_HOME)/include
$(GPU_MODELS): $(GPU_MODELS_OBJ) $(BUILD)/gpu/gaps.o $(BUILD)/gpu/device_cuda.o $(CORE_LIB)
	$(call say,link,$@)
	$(SHOW)$(GPU_LINK) $(GPU_MODELS_OBJ) $(BUILD)/gpu/gaps.o $(BUILD)/gpu/device_cuda.o $(CORE_LIB) -o $@ $(LDLIBS) $(LDLIBS_CUDA)
$(GPU_MODELS_EMULATED): $(GPU_MODELS_OBJ) $(GPU_SIMT_OBJ) $(call obj,gpu/device_emulated.c) $(CORE_LIB)
	$(call say,link,$@)
	$(SHOW)$(CC) $(CFLAGS_ALL) $(GPU_MODELS_OBJ) $(GPU_SIMT_OBJ) $(call obj,gpu/device_emulated.c) $(CORE_LIB) -o $@ $(LDLIBS)

# Hopper's asynchronous products are for sm_90a alone, and only a roof uses them.
GPU_BENCH     := $(BUILD)/gpu/gpu_bench
GPU_BENCH_OBJ := $(patsubst %,$(BUILD)/gpu/%.o,bench roofs roof_wgmma kernel_times) \
                 $(GPU_KERNELS:%=$(BUILD)/backend/cuda/%.o) $(call obj,backend/cuda/weight.c)
$(BUILD)/gpu/roof_wgmma.o: CFLAGS_CUDA := -std=c++17 -O3 -I. --Werror all-warnings -gencode arch=compute_90a,code=sm_90a
$(GPU_BENCH): $(GPU_BENCH_OBJ) $(CORE_LIB)
	$(call say,link,$@)
	$(SHOW)$(GPU_LINK) $(GPU_BENCH_OBJ) $(CORE_LIB) -o $@ $(LDLIBS) $(LDLIBS_CUDA)

# What the program needs beside libc lies in lib/. Symbols stay here.
.PHONY: gpu-suite gpu-suite-programs gpu-results cuda-resources
gpu-suite: ## build/gpu-suite/: parity, texts, sanitizers and speeds for a machine with a GPU, where ./run does it all
	$(SUBMAKE) -s CUDA=1 gpu-suite-programs
	@gpu/pack.sh build/cuda $(GPU_SUITE) $(GPU_LIMIT_MB)
gpu-suite-programs: $(GPU_PARITY) $(GPU_BENCH) $(GPU_MODELS) $(TANDEM)
gpu-results: ## the lines that ./run wrote there to bench/results: make gpu-results FROM=FOLDER
	@gpu/add_results.sh '$(FROM)' bench/results

cuda-resources: ## registers, spills and shared memory of every kernel on sm_90, from ptxas; fails on a spill
	@for file in $(GPU_KERNELS:%=backend/cuda/%.cu); do \
	    $(NVCC) $(filter-out -gencode arch=% -lineinfo,$(CFLAGS_CUDA)) -gencode arch=compute_90,code=sm_90 \
	        -Xptxas -v -c $$file -o /dev/null 2>&1 || exit 1; \
	done | c++filt | awk -f gpu/resources.awk
