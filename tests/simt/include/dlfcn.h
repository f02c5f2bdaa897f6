/* dlfcn: libraries that backend/cuda opens, as the emulation gives them. Stands where the real header stands.
 * Behaviour: tests/simt/cublaslt.cpp.
 */
#ifndef TESTS_SIMT_DLFCN_H
#define TESTS_SIMT_DLFCN_H

#ifdef __cplusplus
extern "C" {
#endif

enum { RTLD_LOCAL = 0, RTLD_NOW = 2 };
#define dlopen simt_dlopen
#define dlsym simt_dlsym
#define dlerror simt_dlerror
void *dlopen(const char *path, int flags);
void *dlsym(void *library, const char *name);
char *dlerror(void);

#ifdef __cplusplus
}
#endif
#endif
