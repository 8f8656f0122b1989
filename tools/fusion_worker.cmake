fusion_program(fusion-worker SOURCES fusion_worker.cpp worker_retrainer.cpp worker_surroundings.cpp worker_times.cpp worker_trainer.cpp DEPS train client)
