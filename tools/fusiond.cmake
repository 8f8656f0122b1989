# The daemon without its main(): end-to-end tests and later tools use it too.
fusion_library(daemon
  SOURCES api.cpp api_blobs.cpp api_operations.cpp api_parts.cpp api_retrainings.cpp backup_host.cpp blob_table.cpp daemon.cpp daemon_config.cpp
          epoch_history.cpp export_document.cpp fork_document.cpp metrics.cpp pool_token.cpp process_figures.cpp received_folder.cpp retraining_document.cpp retraining_files.cpp
          retraining_host.cpp service_notice.cpp study_document.cpp study_host.cpp termination_signals.cpp worker_pools.cpp
  DEPS security dispatch launch search store space base)
# Threads that take and free small things thousands of times a second, and pass them on to each other: what mimalloc is made for. Named as a library
# of the program it stands before the C library, and takes the place of its malloc, for SQLite too.
if(FUSION_MIMALLOC)
  set(fusiond_allocator mimalloc)
endif()
fusion_program(fusiond SOURCES fusiond.cpp DEPS daemon LIBS ${fusiond_allocator})
