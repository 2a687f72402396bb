# NcclCommunicator over a fake libnccl.so, on streams of the CPU: of CUDA only headers are needed.
if(NOT TARGET test_nccl)
  return()
endif()
add_library(fake_nccl SHARED support/fake_nccl.cpp)
target_include_directories(fake_nccl PRIVATE support ${PROJECT_SOURCE_DIR}/include
                           $<TARGET_PROPERTY:ashlar_internal,INTERFACE_INCLUDE_DIRECTORIES>)
target_link_libraries(fake_nccl PRIVATE ashlar_flags Threads::Threads)
if(ASHLAR_SANITIZE MATCHES undefined) # whose checks of vptr want type information that programs keep to themselves
  set_source_files_properties(support/fake_nccl.cpp PROPERTIES COMPILE_OPTIONS -fno-sanitize=vptr) # behind the target's
endif()

target_sources(test_nccl PRIVATE comm/conformance.cpp comm/conformance_contract.cpp)
if(NOT ASHLAR_NCCL)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/cuda/nccl_*.cpp)
  list(FILTER sources EXCLUDE REGEX "/nccl_factory\\.cpp$")
  target_sources(test_nccl PRIVATE ${sources})
endif()
target_sources(test_nccl PRIVATE $<TARGET_OBJECTS:ashlar_cuda_emulated>)
target_link_libraries(test_nccl PRIVATE ashlar_emulator)
foreach(target test_nccl fake_nccl)
  target_include_directories(${target} SYSTEM PRIVATE ${ASHLAR_NCCL_INCLUDE})
endforeach()
target_compile_definitions(test_nccl PRIVATE ASHLAR_FAKE_NCCL="$<TARGET_FILE:fake_nccl>")
add_dependencies(test_nccl fake_nccl)
set_tests_properties(nccl PROPERTIES PROCESSORS 2)
