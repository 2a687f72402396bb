# The README's code is the quickstart's, letter by letter.
file(READ ${SOURCE}/README.md readme)
file(READ ${SOURCE}/examples/quickstart.cpp quickstart)
string(REGEX MATCH "```cpp\n([^`]*)```" block "${readme}")
string(STRIP "${CMAKE_MATCH_1}" code)
string(FIND "${quickstart}" "${code}" position)
if(code STREQUAL "" OR position EQUAL -1)
  message(FATAL_ERROR "README.md: the code block is not a part of examples/quickstart.cpp")
endif()
