// A libcuda.so.1 without a device, for cuDNN to make plans with: code is loaded and kernels are
// found, to no effect. The signatures are cut down to the arguments that are written.
namespace {

constexpr int kSuccess = 0, kNoDevice = 100;
int anything = 0;

int found(void** to) {
  *to = &anything;
  return kSuccess;
}

int described(int, const char** to) {
  *to = "the fake driver has no device";
  return kSuccess;
}

}  // namespace

extern "C" {

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
int cuGetErrorName(int error, const char** name) { return described(error, name); }
int cuGetErrorString(int error, const char** text) { return described(error, text); }
int cuCtxGetCurrent(void** context) { return found(context); }
int cuLibraryLoadData(void** library) { return found(library); }
int cuLibraryGetKernel(void** kernel) { return found(kernel); }
int cuLibraryUnload() { return kSuccess; }
int cuKernelGetFunction(void** function) { return found(function); }
int cuKernelSetAttribute() { return kSuccess; }
int cuFuncSetAttribute() { return kSuccess; }
int cuModuleLoadData(void** module) { return found(module); }
int cuModuleGetFunction(void** function) { return found(function); }

// Looked up with the others, and not called.
int cuCtxGetLimit() { return kNoDevice; }
int cuCtxPopCurrent() { return kNoDevice; }
int cuCtxPushCurrent() { return kNoDevice; }
int cuDeviceGet() { return kNoDevice; }
int cuDeviceGetCount() { return kNoDevice; }
int cuKernelGetAttribute() { return kNoDevice; }
int cuLaunchCooperativeKernel() { return kNoDevice; }
int cuLaunchKernel() { return kNoDevice; }
int cuLaunchKernelEx() { return kNoDevice; }
int cuLibraryLoadFromFile() { return kNoDevice; }
int cuLinkAddData() { return kNoDevice; }
int cuLinkComplete() { return kNoDevice; }
int cuLinkCreate() { return kNoDevice; }
int cuLinkDestroy() { return kNoDevice; }
int cuOccupancyMaxPotentialClusterSize() { return kNoDevice; }
int cuStreamGetCtx() { return kNoDevice; }

}  // extern "C"
