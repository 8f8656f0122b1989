if(NOT TARGET fusion_data OR NOT TARGET fusion_train OR NOT TARGET fusion_client)
  return()
endif()
fusion_program(fusion-worker SOURCES fusion_worker.cpp worker_trainer.cpp DEPS train client)
