# load16 and store16 are one access of 16 bytes each in PTX, load8 and store8 one of 8. Run with -DNVCC= -DSOURCE=.
execute_process(COMMAND ${NVCC} -std=c++20 --expt-relaxed-constexpr -arch=compute_80 --ptx -I${SOURCE}/include -I${SOURCE}
                        ${SOURCE}/tests/cuda/vector_access.cu -o -
                OUTPUT_VARIABLE ptx RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "nvcc failed: ${failed}")
endif()
foreach(access ld st)
  string(REGEX MATCHALL "${access}\\.global[^ \t]*" found "${ptx}")
  set(one "${access}\\.global[a-z.]*")
  if(NOT found MATCHES "^${one}\\.v4\\.[ub]32;${one}\\.v2\\.[ub]32$")
    message(FATAL_ERROR "16 and 8 bytes are not one access each: '${found}'")
  endif()
endforeach()
