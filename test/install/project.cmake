# SPDX-License-Identifier: LGPL-2.1-or-later
cmake_minimum_required(VERSION 3.13)
project(user C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hgm REQUIRED IMPORTED_TARGET hgm>=0.1)
add_executable(user user.c)
target_link_libraries(user PkgConfig::hgm)
