# ashlar::torch: include/ashlar/interop/torch.hpp and the libtorch that it is compiled against. Needs ashlar::ashlar and
# Torch; the build and the installed package use it alike.
add_library(ashlar_torch INTERFACE)
add_library(ashlar::torch ALIAS ashlar_torch)
target_link_libraries(ashlar_torch INTERFACE ashlar::ashlar torch)
# Debian's libtorch is built so, and at::RecordFunction has other members without.
target_compile_definitions(ashlar_torch INTERFACE NDEBUG)
target_include_directories(ashlar_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
