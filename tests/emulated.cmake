# The kernels of cuda/kernels as C++ on the emulator of support/emulator, and their tests.
if(NOT TARGET test_emulated)
  return()
endif()
find_package(Boost REQUIRED COMPONENTS context)

file(GLOB sources CONFIGURE_DEPENDS support/emulator/*.cpp)
if(NOT ASHLAR_CUDA)  # what of the room needs no toolkit
  foreach(file launch kernels/table meeting shared_gpu shared_library)
    list(APPEND sources ${PROJECT_SOURCE_DIR}/cuda/${file}.cpp)
  endforeach()
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
foreach(family attention conv dropout elementwise embedding grouped_attention layer_norm llama pool softmax take view)
  target_sources(test_emulated PRIVATE ops/${family}_test.cpp)
endforeach()
target_sources(test_emulated PRIVATE ops/harness_run.cpp comm/conformance.cpp comm/conformance_contract.cpp)
add_test(NAME emulated.ops COMMAND test_emulated "--test-case=ops:*")
ashlar_time_limit(emulated.ops 600)

# The rows of attention over a fake library of the CPU's kernels.
if(TARGET test_emulated_attention)
  target_sources(test_emulated_attention PRIVATE emulated/device_call.cpp emulated/emulator_backend.cpp
                 $<TARGET_OBJECTS:ashlar_cuda_emulated>)
  if(NOT ASHLAR_CUDNN)
    target_sources(test_emulated_attention PRIVATE ${PROJECT_SOURCE_DIR}/cuda/cudnn_rows.cpp
                   ${PROJECT_SOURCE_DIR}/cuda/cudnn_problem.cpp)
  endif()
  target_link_libraries(test_emulated_attention PRIVATE ashlar_emulator)
endif()

# The rows of products over a fake libcublasLt.so.13, which the program finds under that name because it is linked to it.
if(NOT TARGET test_emulated_products)
  return()
endif()
add_library(fake_cublaslt SHARED support/fake_cublaslt.cpp)
set_target_properties(fake_cublaslt PROPERTIES OUTPUT_NAME cublasLt SUFFIX .so.13
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fake_cublaslt)
target_include_directories(fake_cublaslt PRIVATE support ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(fake_cublaslt PRIVATE ashlar_flags)

target_sources(test_emulated_products PRIVATE emulated/op_check.cpp emulated/device_call.cpp emulated/emulator_backend.cpp
               ops/harness_run.cpp
               ops/product_rows_test.cpp ops/linear_gradient_test.cpp emulated_attention/fake_library.cpp $<TARGET_OBJECTS:ashlar_cuda_emulated>)
if(NOT ASHLAR_CUDA)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cuda/cublaslt*.cpp)
  list(FILTER sources EXCLUDE REGEX "/cublaslt_device\\.cpp$")
  foreach(file backend library_choices planned_calls)
    list(APPEND sources ${PROJECT_SOURCE_DIR}/cuda/${file}.cpp)
  endforeach()
  target_sources(test_emulated_products PRIVATE ${sources})
endif()
if(NOT ASHLAR_CUDNN)
  target_sources(test_emulated_products PRIVATE ${PROJECT_SOURCE_DIR}/cuda/cudnn_rows.cpp
                 ${PROJECT_SOURCE_DIR}/cuda/cudnn_problem.cpp)
endif()
target_link_libraries(test_emulated_products PRIVATE fake_cublaslt ashlar_emulator)
target_link_options(test_emulated_products PRIVATE LINKER:--disable-new-dtags)  # not another one of LD_LIBRARY_PATH
target_include_directories(test_emulated_products PRIVATE ${PROJECT_SOURCE_DIR}/perf)  # gpu/candidates.hpp
foreach(target test_emulated_products fake_cublaslt)
  target_include_directories(${target} SYSTEM PRIVATE ${ASHLAR_CUBLASLT_INCLUDE})
endforeach()
find_library(ASHLAR_CUBLASLT NAMES libcublasLt.so.13 HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS /usr/local/cuda/lib64)
if(ASHLAR_CUBLASLT)
  target_compile_definitions(test_emulated_products PRIVATE ASHLAR_CUBLASLT="${ASHLAR_CUBLASLT}")
endif()
