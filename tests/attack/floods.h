#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "tests/attack/attacks.h"

namespace fusion::attack {

/// Opens `count` connections to `address` that never get as far as a request, and holds them for `hold`: a third says nothing, a third begins a
/// TLS handshake and stops, a third has done it and stops (at most 500 of these, for each costs us a handshake too). `most`: how many the daemon may
/// keep at once. Needs as many descriptors; those that the system does not give are left out, and the row says how many there were.
Row flood(const Target& target, const std::string& name, const std::string& address, int count, std::size_t most, std::chrono::milliseconds hold);

/// `count` clients that send a byte every now and then and never come to an end: of a head, of a body, of a handshake. All must be cut off, without
/// an answer or with one, within `patience`.
std::vector<Row> slow_clients(const Target& target, int count, std::chrono::seconds patience);

/// An address of this machine that is not loopback; empty if it has none.
std::string own_address();

/// Raises the limit of open files as far as it goes and returns it.
std::size_t descriptors_allowed();

}  // namespace fusion::attack
