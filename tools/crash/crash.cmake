# Real processes, killed (docs/crash-tests.md). The checker is a library so that it can be tested itself.
add_library(fusion_crash STATIC crash/history_check.cpp crash/load.cpp crash/program.cpp crash/scene.cpp crash/verdict.cpp)
fusion_options(fusion_crash)
target_link_libraries(fusion_crash PUBLIC fusion_simulate fusion_client fusion_store fusion_space fusion_base)
fusion_program(crash_test SOURCES crash/crash_test.cpp DEPS crash LIBS CLI11::CLI11)
fusion_program(fleet_test SOURCES crash/fleet_test.cpp DEPS crash LIBS CLI11::CLI11)
foreach(program crash_test fleet_test)
  add_dependencies(${program} fusiond fusion-worker fusionctl)
endforeach()
