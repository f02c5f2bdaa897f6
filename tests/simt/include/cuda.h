/* cuda: what backend/cuda takes of the driver's header. Stands where the real header stands. */
#ifndef TESTS_SIMT_CUDA_H
#define TESTS_SIMT_CUDA_H

typedef enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1 } CUresult;
typedef int CUdevice;
typedef struct CUstream_st *CUstream;
typedef struct CUgreenCtx_st *CUgreenCtx;
typedef enum { CU_DEV_RESOURCE_TYPE_SM = 1 } CUdevResourceType;
typedef struct { unsigned smCount; } CUdevSmResource;
typedef struct { CUdevResourceType type; CUdevSmResource sm; } CUdevResource;
typedef struct CUdevResourceDesc_st *CUdevResourceDesc;
enum { CU_GREEN_CTX_DEFAULT_STREAM = 1, CU_STREAM_NON_BLOCKING = 1 };

#endif
