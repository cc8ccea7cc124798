# Given to llama.cpp as CMAKE_PROJECT_INCLUDE, so its sources stay as they are. A unity build compiles several
# files as one, which three times halves the work; the few files that clash with their neighbours (macros and static
# names of their own) are compiled alone.
if(NOT PROJECT_NAME STREQUAL "llama.cpp")
  return()
endif()

function(slipway_compile_alone target pattern)
  if(NOT TARGET ${target})
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  get_target_property(directory ${target} SOURCE_DIR)
  foreach(source IN LISTS sources)
    if(source MATCHES "${pattern}")
      set_source_files_properties(
        ${directory}/${source} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
  endforeach()
endfunction()

# Deferred, because this file runs before the targets exist.
cmake_language(DEFER CALL slipway_compile_alone llama-common "json\\.cpp$")
cmake_language(DEFER CALL slipway_compile_alone mtmd "mtmd-helper[a-z-]*\\.cpp$")
