#include "workers/train/script_text.h"

#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace fusion {

namespace {

/// Lines of a method, indented by hand.
class Text {
 public:
  Text& operator<<(const std::string& line) {
    text_ += line + "\n";
    return *this;
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  const std::string plain = text;
  return plain.find_first_of(".en") == std::string::npos ? plain + ".0" : plain;
}

std::string number(std::int64_t value) { return std::to_string(value); }
std::string at_self(const std::string& dotted) { return script_path("self", dotted); }

/// addmm(b, x, W^T), as FusionNetwork and Mmtm calculate.
std::string addmm(const std::string& layer, const std::string& x) {
  return "torch.addmm(" + at_self(layer + ".bias") + ", " + x + ", torch.t(" + at_self(layer + ".weight") + "))";
}

std::string linear(const std::string& layer, const std::string& x) {
  return "torch.linear(" + x + ", " + at_self(layer + ".weight") + ", " + at_self(layer + ".bias") + ")";
}

std::string batch_norm(const std::string& bn, const std::string& x, double eps = 1e-5) {
  return "torch.batch_norm(" + x + ", " + at_self(bn + ".weight") + ", " + at_self(bn + ".bias") + ", " + at_self(bn + ".running_mean") +
         ", " + at_self(bn + ".running_var") + ", False, 0.1, " + number(eps) + ", False)";
}

std::string activation(Activation kind, const std::string& z) {
  switch (kind) {
    case Activation::relu: return "torch.relu(" + z + ")";
    case Activation::sigmoid: return "torch.sigmoid(" + z + ")";
    case Activation::leaky_relu: return "torch.leaky_relu(" + z + ", 0.01)";
    case Activation::identity: return z;
  }
  throw ModelError("activation number " + std::to_string(static_cast<int>(kind)) + " is unknown");
}

// ------------------------------------------------------------------------------------------------ temporal heads

/// A convolution without bias and batch normalisation behind it (model/reduction.h), its sizes as its weight has them.
std::string conv_norm(const TemporalHead& head, const std::string& conv, const std::string& bn, const std::string& x, std::int64_t groups) {
  const at::Tensor weight = head.parameters().at(conv + ".weight");
  std::string padding;
  for (std::int64_t axis = 2; axis < 5; ++axis) padding += (axis == 2 ? "" : ", ") + number(weight.size(axis) / 2);
  return batch_norm(bn, "torch.conv3d(" + x + ", " + at_self(conv + ".weight") + ", None, [1, 1, 1], [" + padding + "], [1, 1, 1], " +
                            number(groups) + ")");
}

void write_reduction(const TemporalHead& head, Text& text) {
  if (head.options().reduction.kind == ReductionKind::none) return;
  if (head.options().reduction.kind != ReductionKind::bottleneck) throw ModelError("export: an inception block is not made by retrainings");
  const bool beside = head.parameters().contains("mapper.downsample.0.weight");
  text << "    y = torch.relu(" + conv_norm(head, "mapper.conv1", "mapper.bn1", "x", 1) + ")";
  text << "    y = torch.relu(" + conv_norm(head, "mapper.conv2", "mapper.bn2", "y", head.options().reduction.groups) + ")";
  text << "    y = " + conv_norm(head, "mapper.conv3", "mapper.bn3", "y", 1);
  text << "    x = torch.relu(y + " + (beside ? conv_norm(head, "mapper.downsample.0", "mapper.downsample.1", "x", 1) : "x") + ")";
}

void write_non_local(const TemporalHead& head, Text& text) {
  const auto conv = [](const std::string& name, const std::string& x) {
    return "torch.conv3d(" + x + ", " + at_self("NLB." + name + ".weight") + ", " + at_self("NLB." + name + ".bias") + ")";
  };
  text << "    g = torch.transpose(torch.flatten(" + conv("g", "x") + ", 2), 1, 2)";
  text << "    theta = torch.transpose(torch.flatten(" + conv("theta", "x") + ", 2), 1, 2)";
  text << "    phi = torch.flatten(" + conv("phi", "x") + ", 2)";
  text << "    affinity = torch.softmax(torch.matmul(theta, phi) / " + number(std::sqrt(static_cast<double>(head.tokens()))) + ", -1)";
  text << "    z = torch.transpose(torch.matmul(affinity, g), 1, 2).reshape([x.size(0), g.size(2), x.size(2), x.size(3), x.size(4)])";
  text << "    x = x + " + batch_norm("NLB.W_z.1", conv("W_z.0", "z"));
}

void write_block(const std::string& block, Text& text) {
  const std::string attention = block + "attention.";
  const auto norm = [&](const std::string& which, const std::string& x) {
    const std::string name = block + which + "_sublayer.norm.";
    return "self.norm(" + x + ", " + at_self(name + "a_2") + ", " + at_self(name + "b_2") + ")";
  };
  text << "    n = " + norm("input", "x");
  text << "    a = self.attend(" + linear(attention + "linear_layers.0", "n") + ", " + linear(attention + "linear_layers.1", "n") + ", " +
              linear(attention + "linear_layers.2", "n") + ")";
  text << "    x = x + " + linear(attention + "output_linear", "a");
  const std::string inner = linear(block + "feed_forward.w_1", norm("output", "x"));
  text << "    x = x + " + linear(block + "feed_forward.w_2", "torch.gelu(" + inner + ", approximate=\"tanh\")");
}

void write_bert_methods(const TemporalHead& head, Text& text) {
  const std::int64_t width = head.options().reduction.width_after(head.width()), heads = head.options().bert.heads, size = width / heads;
  text << "def norm(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:";
  text << "    centred = x - torch.mean(x, [-1], True)";
  text << "    return centred / (torch.std(x, [-1], True, True) + 1e-6) * a + b";
  text << "def split(self, x: Tensor) -> Tensor:";
  text << "    return torch.transpose(x.view([x.size(0), x.size(1), " + number(heads) + ", " + number(size) + "]), 1, 2)";
  text << "def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:";
  text << "    scores = torch.matmul(self.split(q), torch.transpose(self.split(k), 2, 3)) / " + number(std::sqrt(static_cast<double>(size)));
  text << "    joined = torch.matmul(torch.softmax(scores, -1), self.split(v))";
  text << "    return torch.transpose(joined, 1, 2).reshape([q.size(0), q.size(1), q.size(2)])";
}

void write_bert(const TemporalHead& head, Text& text) {
  const BertOptions& options = head.options().bert;
  if (head.parameters().contains("bert.clsToken_rgb")) throw ModelError("export: a BERT head of two streams is not made by retrainings");
  const bool scaled = head.parameters().contains("bert.a_2");
  text << "    cls = " + at_self("bert.clsToken") + (scaled ? " * " + at_self("bert.a_2") + " + " + at_self("bert.b_2") : "");
  text << "    x = torch.cat([cls.expand([x.size(0), 1, x.size(2)]), x], 1)";
  const std::string learned = "bert.embedding.learnedPosition.";
  if (head.buffers().contains("bert.embedding.position.pe")) {
    text << "    x = " + at_self("bert.embedding.position.pe") + " + x";
  } else if (head.parameters().contains(learned + "a_2")) {
    text << "    x = " + at_self(learned + "a_2") + " * " + at_self(learned + "pe") + " + " + at_self(learned + "b_2") + " + x";
  } else {
    text << "    x = " + at_self(learned + "pe") + " + x";
  }
  for (std::int64_t i = 0; i < options.layers; ++i) write_block("bert.transformer_blocks." + number(i) + ".", text);
  text << "    s = torch.select(x, 1, 0)";
}

void write_lstm(const TemporalHead& head, Text& text) {
  const std::int64_t layers = head.options().lstm_layers, hidden = head.options().hidden_width();
  std::string weights;
  for (std::int64_t i = 0; i < layers; ++i) {
    for (const char* what : {"weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l"}) {
      weights += (weights.empty() ? "" : ", ") + at_self("lstm." + std::string(what) + number(i));
    }
  }
  text << "    zeros = torch.zeros([" + number(layers) + ", x.size(0), " + number(hidden) + "], dtype=x.dtype, device=x.device)";
  text << "    out, last, cell = torch.lstm(x, [zeros, zeros], [" + weights + "], True, " + number(layers) + ", 0.0, False, False, True)";
  text << "    s = torch.select(out, 1, out.size(1) - 1)";
}

}  // namespace

std::string script_path(const std::string& root, const std::string& dotted) {
  std::string path = root;
  for (std::size_t at = 0; at < dotted.size();) {
    const std::size_t end = std::min(dotted.find('.', at), dotted.size());
    const std::string part = dotted.substr(at, end - at);
    const bool plain = part.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos &&
                       (part[0] < '0' || part[0] > '9');
    path = plain ? path + "." + part : "getattr(" + path + ", \"" + part + "\")";
    at = end + 1;
  }
  return path;
}

std::string lenet_text(const LeNetOptions& options) {
  Text text;
  for (std::int64_t i = 0; i < options.blocks; ++i) {
    const std::string n = number(i + 1), padding = i == 0 ? "2" : "1";
    text << "def stage" + number(i) + "(self, x: Tensor) -> Tensor:";
    if (i > 0) text << "    x = torch.max_pool2d(x, [2, 2])";
    text << "    x = torch.conv2d(x, " + at_self("conv" + n + ".weight") + ", None, [1, 1], [" + padding + ", " + padding + "])";
    text << "    return torch.relu(" + batch_norm("bn" + n, "x") + ")";
    text << "def tap" + number(i) + "(self, x: Tensor) -> Tensor:";
    text << std::string("    return ") + (i == 0 && options.first_tap_after_pool ? "torch.max_pool2d(x, [2, 2])" : "x");
  }
  text << "def classify(self, x: Tensor) -> Tensor:";
  text << "    pooled = torch.mean(torch.flatten(self.tap" + number(options.blocks - 1) + "(x), 2), [2])";
  text << "    return " + addmm("classifier", "pooled");
  return text.take();
}

std::string fusion_text(const FusionNetwork& network, const std::vector<std::int64_t>& first_widths) {
  Text text;
  text << "def hidden(self, joined: List[Tensor]) -> Tensor:";
  const auto& steps = network.architecture().steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::string layer = "layer" + std::to_string(i);
    text << "    x = joined[" + std::to_string(i) + "]";
    if (network.options().alphas) {
      const std::string first = number(first_widths[i]), rest = number(network.tap_columns(i) - first_widths[i]);
      text << "    s = torch.sigmoid(" + at_self(layer + ".alpha") + ")";
      text << "    x = torch.cat([torch.narrow(x, 1, 0, " + first + ") * s, torch.narrow(x, 1, " + first + ", " + rest + ") * (1 - s)], 1)";
    }
    if (i > 0) text << "    x = torch.cat([x, h], 1)";
    text << "    h = " + activation(steps[i].activation, addmm(layer + ".linear", "x"));
    if (steps[i].op == FusionOp::glu) text << "    h = h * torch.sigmoid(" + addmm(layer + ".gate", "x") + ")";
    if (network.options().batchnorm) text << "    h = " + batch_norm(layer + ".bn", "h");
  }
  text << "    return h";
  return text.take();
}

std::string mmtm_text(const Mmtm& module) {
  Text text;
  text << "def squeeze(self, x: Tensor) -> Tensor:";
  text << "    if x.dim() == 2:";
  text << "        return x";
  text << "    return torch.mean(torch.flatten(x, 2), [2])";
  text << "def scale(self, gate: Tensor, x: Tensor) -> Tensor:";
  text << "    shape = [x.size(0), x.size(1)]";
  text << "    for axis in range(x.dim() - 2):";
  text << "        shape.append(1)";
  text << "    return x * gate.view(shape)";
  std::string squeezed, gates;
  const NamedTensors& named = module.parameters().named();  // weight and bias of the squeeze, then of each gate
  for (std::size_t m = 0; m < module.channels().size(); ++m) {
    const std::string& weight = named[2 * (m + 1)].first;
    const std::string half = "torch.sigmoid(" + addmm(weight.substr(0, weight.rfind('.')), "z") + ")";
    squeezed += (m == 0 ? "" : ", ") + std::string("self.squeeze(maps[") + std::to_string(m) + "])";
    gates += (m == 0 ? "" : ", ") + half + (module.options().gate == GateRule::paper ? " * 2" : "");
  }
  text << "def gates(self, maps: List[Tensor]) -> List[Tensor]:";
  text << "    z = torch.relu(" + addmm("fc_squeeze", "torch.cat([" + squeezed + "], 1)") + ")";
  text << "    return [" + gates + "]";
  return text.take();
}

std::string head_text(const TemporalHead& head) {
  const TemporalHeadOptions& options = head.options();
  Text text;
  if (options.kind == TemporalKind::bert) write_bert_methods(head, text);
  text << "def forward(self, x: Tensor) -> Tensor:";
  if (options.reduction.kind != ReductionKind::none || options.kind == TemporalKind::non_local) {
    text << "    x = torch.unsqueeze(torch.unsqueeze(torch.transpose(x, 1, 2), 3), 4)";
    write_reduction(head, text);
    if (options.kind == TemporalKind::non_local) write_non_local(head, text);
    text << "    x = torch.transpose(torch.flatten(x, 2), 1, 2).contiguous()";
  }
  if (options.normalise) text << "    x = x / torch.linalg_vector_norm(x, 2, [-1], True)";
  switch (options.kind) {
    case TemporalKind::bert: write_bert(head, text); break;
    case TemporalKind::mean: text << "    s = torch.mean(x, [1])"; break;
    case TemporalKind::lstm: write_lstm(head, text); break;
    case TemporalKind::concatenation:
    case TemporalKind::non_local: text << "    s = torch.transpose(x, 1, 2).reshape([x.size(0), -1])"; break;
  }
  if (head.parameters().contains("linear.weight")) text << "    s = " + linear("linear", "s");
  text << "    return " + linear("fc_action", "s");
  return text.take();
}

}  // namespace fusion
