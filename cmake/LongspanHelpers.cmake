# Helpers shared by every directory. Modules are object libraries named lsm_<name>;
# the product library and each unit test take the objects they need.

add_library(ls_flags INTERFACE)
target_compile_options(ls_flags INTERFACE
  -Wall -Wextra -Wundef -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wpointer-arith -Wwrite-strings -fno-math-errno)
target_compile_definitions(ls_flags INTERFACE _GNU_SOURCE)
target_include_directories(ls_flags INTERFACE
  "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")

# Evaluated lazily, so that the options of the top-level file are seen.
function(ls_apply_options)
  if(LS_WERROR)
    target_compile_options(ls_flags INTERFACE -Werror)
  endif()
  if(LS_SANITIZE)
    target_compile_options(ls_flags INTERFACE -fsanitize=${LS_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(ls_flags INTERFACE -fsanitize=${LS_SANITIZE})
    if(LS_SANITIZE MATCHES "undefined")
      target_compile_options(ls_flags INTERFACE -fno-sanitize-recover=undefined)
    endif()
  endif()
  if(LS_COVERAGE)
    target_compile_options(ls_flags INTERFACE --coverage)
    target_link_options(ls_flags INTERFACE --coverage)
  endif()
endfunction()

# ls_module(name SOURCES ... [DEPS module ...] [LIBS target ...])
function(ls_module name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  add_library(lsm_${name} OBJECT ${A_SOURCES})
  target_link_libraries(lsm_${name} PRIVATE ls_flags ${A_LIBS})
  set_property(GLOBAL APPEND PROPERTY LS_MODULES ${name})
  set_property(GLOBAL PROPERTY LS_DEPS_${name} ${A_DEPS})
  set_property(GLOBAL PROPERTY LS_LIBS_${name} ${A_LIBS})
endfunction()

# ls_module_isa(name isa "flags" SOURCES ...): files of module `name` that only this
# instruction set may run. One object library each, no link-time optimisation. Sanitizers leave them out,
# except the references: unrolled vector code takes minutes to instrument, and the kernel tests run
# every kernel between guard pages.
function(ls_module_isa name isa flags)
  cmake_parse_arguments(A "" "" "SOURCES" ${ARGN})
  add_library(lsm_${name}_${isa} OBJECT ${A_SOURCES})
  target_link_libraries(lsm_${name}_${isa} PRIVATE ls_flags)
  target_compile_options(lsm_${name}_${isa} PRIVATE ${flags})
  if(LS_SANITIZE AND NOT isa STREQUAL "ref")
    # On the files: options of files come behind those that the target gets from ls_flags.
    set_source_files_properties(${A_SOURCES} PROPERTIES COMPILE_OPTIONS "-fno-sanitize=all;-O2")
  endif()
  set_target_properties(lsm_${name}_${isa} PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)
  set_property(GLOBAL APPEND PROPERTY LS_ISA_${name} lsm_${name}_${isa})
endfunction()

function(ls_module_closure out)
  set(todo ${ARGN})
  set(seen "")
  while(todo)
    list(POP_FRONT todo m)
    if(NOT m IN_LIST seen)
      list(APPEND seen ${m})
      get_property(deps GLOBAL PROPERTY LS_DEPS_${m})
      list(APPEND todo ${deps})
    endif()
  endwhile()
  set(${out} ${seen} PARENT_SCOPE)
endfunction()

# Link the objects and libraries of modules (and of what they depend on) into a target.
function(ls_link_modules target)
  ls_module_closure(modules ${ARGN})
  foreach(m ${modules})
    get_property(isa GLOBAL PROPERTY LS_ISA_${m})
    get_property(libs GLOBAL PROPERTY LS_LIBS_${m})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:lsm_${m}>)
    foreach(i ${isa})
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:${i}>)
    endforeach()
    target_link_libraries(${target} PRIVATE ${libs})
  endforeach()
  target_link_libraries(${target} PRIVATE ls_flags m)
endfunction()

# ls_add_test(name SOURCES ... MODULES ... [LABELS ...] [ARGS ...] [TIMEOUT s])
# A test that exits 77 is reported as skipped.
function(ls_add_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;MODULES;LABELS;ARGS;LIBS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  ls_link_modules(${name} ${A_MODULES})
  if(A_LIBS)
    target_link_libraries(${name} PRIVATE ${A_LIBS})
  endif()
  target_compile_definitions(${name} PRIVATE LS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS} WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 600)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT} SKIP_RETURN_CODE 77)
endfunction()
