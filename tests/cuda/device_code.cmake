# What nvcc makes of device code, as PTX. Run with -DNVCC= -DSOURCE=.
function(ptx_of file result)
  execute_process(COMMAND ${NVCC} -std=c++20 --expt-relaxed-constexpr --fmad=false -arch=compute_80 --ptx -I${SOURCE}/include
                          -I${SOURCE}/src -I${SOURCE} ${SOURCE}/tests/cuda/${file} -o -
                  OUTPUT_VARIABLE ptx RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "nvcc failed on ${file}: ${failed}")
  endif()
  set(${result} "${ptx}" PARENT_SCOPE)
endfunction()

# load16 and store16 are one access of 16 bytes each, load8 and store8 one of 8.
ptx_of(vector_access.cu ptx)
foreach(access ld st)
  string(REGEX MATCHALL "${access}\\.global[^ \t]*" found "${ptx}")
  set(one "${access}\\.global[a-z.]*")
  if(NOT found MATCHES "^${one}\\.v4\\.[ub]32;${one}\\.v2\\.[ub]32$")
    message(FATAL_ERROR "16 and 8 bytes are not one access each: '${found}'")
  endif()
endforeach()

# The formulas are computed there: nvcc leaves out, in silence, what a constexpr function calls of the host's functions.
ptx_of(formulas_test.cu ptx)
foreach(instruction fma.rn.f32 sqrt.rn.f32 div.rn.f32)
  string(FIND "${ptx}" "${instruction}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "the element formulas have no ${instruction}")
  endif()
endforeach()
