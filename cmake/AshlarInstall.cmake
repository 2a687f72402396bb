# Install: library, headers, find_package(ashlar) giving ashlar::ashlar, and pkg-config's ashlar.pc. The library is static,
# so both name what it needs in turn.
include(CMakePackageConfigHelpers)

install(TARGETS ashlar EXPORT ashlarTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ashlar DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.hpp)

set(ASHLAR_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/ashlar)
install(EXPORT ashlarTargets NAMESPACE ashlar:: DESTINATION ${ASHLAR_CMAKE_DIR})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ashlarConfig.cmake.in ${PROJECT_BINARY_DIR}/ashlarConfig.cmake
                              INSTALL_DESTINATION ${ASHLAR_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ashlarConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ashlarConfig.cmake ${PROJECT_BINARY_DIR}/ashlarConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/ashlarTorch.cmake
        DESTINATION ${ASHLAR_CMAKE_DIR})

set(ASHLAR_PC_LIBS "")
string(REGEX REPLACE "[^/]+" ".." ASHLAR_PC_UP "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
if(ASHLAR_MPI)
  string(REPLACE ";" " " ASHLAR_PC_LIBS "${MPI_CXX_LIBRARIES}")
endif()
if(ASHLAR_CUDA)
  string(APPEND ASHLAR_PC_LIBS " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt")
endif()
if(ASHLAR_SANITIZE)
  string(APPEND ASHLAR_PC_LIBS " -fsanitize=${ASHLAR_SANITIZE}")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/ashlar.pc.in ${PROJECT_BINARY_DIR}/ashlar.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ashlar.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
