# The kernels of cuda/kernels as C++ on the emulator of support/emulator, and their tests.
if(NOT TARGET test_emulated)
  return()
endif()
find_package(Boost REQUIRED COMPONENTS context)

file(GLOB sources CONFIGURE_DEPENDS support/emulator/*.cpp)
if(NOT ASHLAR_CUDA)  # what of the room needs no toolkit
  list(APPEND sources ${PROJECT_SOURCE_DIR}/cuda/launch.cpp ${PROJECT_SOURCE_DIR}/cuda/kernels/table.cpp)
endif()
add_library(ashlar_emulator STATIC ${sources})
target_include_directories(ashlar_emulator PUBLIC support)
target_link_libraries(ashlar_emulator PUBLIC ashlar_internal Boost::context)
target_link_libraries(test_emulated PRIVATE ashlar_emulator)

file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cuda/kernels/*.cu)
if(kernels)
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX)
  add_library(ashlar_cuda_emulated OBJECT ${kernels})
  target_link_libraries(ashlar_cuda_emulated PRIVATE ashlar_emulator)
  target_sources(test_emulated PRIVATE $<TARGET_OBJECTS:ashlar_cuda_emulated>)
endif()

# The cases of the op table run here too: emulated/op_check.cpp has a check() of its own for them.
foreach(family attention dropout elementwise embedding grouped_attention layer_norm llama softmax take view)
  target_sources(test_emulated PRIVATE ops/${family}_test.cpp)
endforeach()
target_sources(test_emulated PRIVATE ops/harness_run.cpp)
