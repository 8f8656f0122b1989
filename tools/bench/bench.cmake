# Measurements by hand (docs/benchmarks.md); none of them is a test.
fusion_program(bench_control_plane
  SOURCES bench/bench_control_plane.cpp bench/control_daemon.cpp bench/control_fleet.cpp bench/control_phases.cpp bench/filled_database.cpp
  DEPS client daemon)
target_compile_definitions(bench_control_plane PRIVATE FUSION_BENCH_FOLDER="${CMAKE_CURRENT_SOURCE_DIR}/bench")
if(FUSION_TORCH)
  fusion_program(bench_trainer
    SOURCES bench/bench_trainer.cpp bench/comparison.cpp bench/engine_run.cpp bench/gemm_rate.cpp bench/gpu_tables.cpp
            bench/naive_loop.cpp bench/python_loop.cpp bench/roofline.cpp bench/shape.cpp
    DEPS train)
  target_compile_definitions(bench_trainer PRIVATE FUSION_BENCH_FOLDER="${CMAKE_CURRENT_SOURCE_DIR}/bench")
  fusion_program(bench_engines SOURCES bench/bench_engines.cpp DEPS train search)
  fusion_program(bench_surrogate
    SOURCES bench/bench_surrogate.cpp bench/lstm_twin.cpp bench/search_replay.cpp
    DEPS search surrogate LIBS ${TORCH_LIBRARIES})
endif()
