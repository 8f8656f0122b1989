#include "base/tensor_files.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace fusion::fuzz {

void npy(std::string_view bytes) {
  const MemoryFile file(bytes);
  try {
    const TensorView tensor = open_npy(file.path());
    expect(tensor.to<double>().size() * size_of(tensor.dtype) == tensor.bytes, "a tensor has as many bytes as its shape says");
  } catch (const Error&) {
  }
}

}  // namespace fusion::fuzz
