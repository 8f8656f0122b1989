#pragma once

#include <string>

namespace fusion {

/// Tells the service manager how this process stands, in the words of sd_notify(3): "READY=1", "STOPPING=1\nSTATUS=waiting for results".
/// A datagram to the socket that NOTIFY_SOCKET names; nothing where there is none, or nobody listens. Never waits, never throws.
void notify_service(const std::string& state);

/// "RELOADING=1" with the time that systemd wants beside it; say "READY=1" when done.
std::string reloading_notice();

}  // namespace fusion
