# CUDA's memory, streams and events over a fake CUDA, which stands before the real one when programs are linked.
if(NOT TARGET test_cuda_memory)
  return()
endif()
add_library(fake_cuda SHARED support/fake_cuda/memory.cpp support/fake_cuda/streams.cpp)
target_include_directories(fake_cuda PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_include_directories(fake_cuda SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(fake_cuda PRIVATE ashlar_flags)

target_sources(test_cuda_memory PRIVATE cuda/device_memory_test.cpp)  # what a GPU must do
get_target_property(libraries test_cuda_memory LINK_LIBRARIES)
set_property(TARGET test_cuda_memory PROPERTY LINK_LIBRARIES fake_cuda ${libraries})

# PyTorch's allocator as it is loaded, on the same fake.
ashlar_torch_allocator(fake_torch_allocator fake_cuda)
target_link_options(fake_torch_allocator PRIVATE LINKER:--no-as-needed)  # what needs the fake comes after it
target_compile_definitions(test_cuda_memory PRIVATE ASHLAR_TORCH_ALLOCATOR="$<TARGET_FILE:fake_torch_allocator>")
add_dependencies(test_cuda_memory fake_torch_allocator)
