# The cluster files as string literals of one source, so that the program finds them wherever it is installed.
function(ashlar_embed_clusters target folder)
  file(GLOB files CONFIGURE_DEPENDS ${folder}/*.json)
  list(FILTER files EXCLUDE REGEX "\\.schema\\.json$")
  set(names "")
  set(cases "")
  foreach(file ${files})
    get_filename_component(name ${file} NAME_WE)
    file(READ ${file} text)
    if(NOT name MATCHES "-calibration$")
      string(APPEND names "    \"${name}\",\n")
    endif()
    string(APPEND cases "  if (name == \"${name}\") return R\"cluster(${text})cluster\";\n")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  endforeach()
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/shipped.cpp @ONLY CONTENT
"#include \"simulate/shipped.hpp\"

namespace ashlar::simulate {
namespace {
constexpr std::string_view kNames[] = {
@names@};
}  // namespace

std::span<const std::string_view> shipped_names() { return kNames; }
std::string_view shipped_json(std::string_view name) {
@cases@  return {};
}

}  // namespace ashlar::simulate
")
  target_sources(${target} PRIVATE ${PROJECT_BINARY_DIR}/generated/shipped.cpp)
endfunction()
