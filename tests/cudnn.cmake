# Attention's graphs by the real cuDNN, without a device: what cuDNN asks the driver for while it plans is answered by a fake.
if(NOT ASHLAR_CUDNN)
  return()
endif()
add_library(fake_driver SHARED support/fake_driver.cpp)
set_target_properties(fake_driver PROPERTIES OUTPUT_NAME cuda SUFFIX .so.1
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fake_driver)
target_link_libraries(fake_driver PRIVATE ashlar_flags)

file(GLOB sources CONFIGURE_DEPENDS cudnn/*.cpp)
add_executable(test_cudnn ${sources})
target_include_directories(test_cudnn PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_include_directories(test_cudnn SYSTEM PRIVATE ${ASHLAR_CUDNN_INCLUDE})
target_link_libraries(test_cudnn PRIVATE fake_driver ashlar_internal doctest::doctest)
target_compile_definitions(test_cudnn PRIVATE ASHLAR_TEST_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
target_link_options(test_cudnn PRIVATE LINKER:--no-as-needed LINKER:--disable-new-dtags)  # nothing of the driver is called from here
add_test(NAME cuda.attention_plans COMMAND test_cudnn)
set_tests_properties(cuda.attention_plans PROPERTIES LABELS cuda SKIP_RETURN_CODE 77
                     ENVIRONMENT "LD_LIBRARY_PATH=${CUDAToolkit_LIBRARY_DIR}:$ENV{LD_LIBRARY_PATH}")
ashlar_time_limit(cuda.attention_plans 300)
