# The client. Its parts are a library, so that tests reach the formatters.
fusion_library(ctl
  SOURCES ctl/backup_command.cpp ctl/commands.cpp ctl/daemon_commands.cpp ctl/daemon_views.cpp ctl/dry_run.cpp ctl/figures.cpp ctl/fork_command.cpp ctl/http_client.cpp ctl/networks.cpp ctl/replay_command.cpp
          ctl/retraining_commands.cpp ctl/retraining_views.cpp ctl/retraining_watch.cpp ctl/security_commands.cpp ctl/simulate_command.cpp
          ctl/study_commands.cpp ctl/study_file.cpp ctl/study_views.cpp ctl/table.cpp ctl/terminal.cpp ctl/text.cpp
          ctl/trial_commands.cpp ctl/trial_views.cpp ctl/watch.cpp
  DEPS dispatch simulate search store security space base
  LIBS CLI11::CLI11 Boost::headers Threads::Threads)
fusion_program(fusionctl SOURCES fusionctl.cpp DEPS ctl)
