# cmake --install: libraries, headers, pkg-config file, CMake package, manual page. (The command: cli/.)

include(CMakePackageConfigHelpers)

install(TARGETS longspan longspan_static
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/longspan" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
file(GLOB ls_manual CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/man/*.1")
install(FILES ${ls_manual} DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")

# What a program that links the static library needs besides.
set(LS_PC_LIBS_PRIVATE "-lm -pthread")
if(LS_ONEDNN)
  string(PREPEND LS_PC_LIBS_PRIVATE "-ldnnl ${OpenMP_C_FLAGS} ")
endif()
# Relative to the file itself, so that a tree that was moved still works.
file(RELATIVE_PATH LS_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file("${PROJECT_SOURCE_DIR}/cmake/longspan.pc.in" "${PROJECT_BINARY_DIR}/longspan.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/longspan.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

set(ls_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/longspan")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/longspanConfig.cmake.in"
  "${PROJECT_BINARY_DIR}/longspanConfig.cmake" INSTALL_DESTINATION "${ls_package_dir}"
  PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/longspanConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/longspanConfig.cmake" "${PROJECT_BINARY_DIR}/longspanConfigVersion.cmake"
  DESTINATION "${ls_package_dir}")
