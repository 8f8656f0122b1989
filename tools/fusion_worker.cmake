# Two programs: fusion-worker, which simulates or becomes the other, and fusion-worker-torch, which trains (docs/worker.md).
fusion_program(fusion-worker SOURCES fusion_worker.cpp worker_blobs.cpp worker_command.cpp worker_devices.cpp worker_surroundings.cpp
  DEPS simulate client devices LIBS CLI11::CLI11)
if(FUSION_TORCH)
  target_compile_definitions(fusion-worker PRIVATE FUSION_WITH_TORCH)
  target_include_directories(fusion-worker SYSTEM PRIVATE ${TORCH_INCLUDE_DIRS})
  fusion_program(fusion-worker-torch
    SOURCES fusion_worker_torch.cpp rank_channel.cpp rank_team.cpp worker_blobs.cpp worker_command.cpp worker_devices.cpp worker_retrainer.cpp
            worker_surroundings.cpp worker_times.cpp worker_trainer.cpp
    DEPS train client devices launch simulate)
  # What it starts for each process of a data-parallel retraining.
  fusion_program(fusion-rank SOURCES fusion_rank.cpp rank_channel.cpp DEPS train)
  add_dependencies(fusion-worker-torch fusion-rank)
  add_dependencies(fusion-worker fusion-worker-torch)
endif()
