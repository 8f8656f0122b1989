#include "tests/fuzz/expect.h"
#include "tests/fuzz/targets.h"
#include "workers/protocol/codec.h"

namespace fusion::fuzz {

void protocol_frame(std::string_view bytes) {
  try {
    const protocol::Message message = protocol::decode(bytes);
    expect(protocol::decode(protocol::encode(message)) == message, "a frame that is read can be sent, and is the same then");
  } catch (const Error&) {
  }
}

}  // namespace fusion::fuzz
