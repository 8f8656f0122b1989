#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/enum_names.h"
#include "model/transformer.h"

namespace fusion {

/// The classes of the authors' code. `bert10` in the names of their models always means BERT5. They differ from BERT5 in:
enum class BertClass {
  bert,       ///< learned gain and bias on the classification token and on every position; other initial values
  bert2,      ///< other initial values
  bert3,      ///< feed-forward layers as wide as the tokens, not four times
  bert4,      ///< other initial values
  bert5,      ///< the published head
  bert6,      ///< a fixed sinusoid (base 64) instead of learned positions; other initial values
  bert7,      ///< in training a drawn token is overwritten by a learned one instead of being hidden from attention
  bert5_both  ///< two streams with one attention map, see BertPair
};
template <>
struct EnumNames<BertClass> {
  static constexpr std::array<std::pair<BertClass, std::string_view>, 8> kTable{{{BertClass::bert, "BERT"},
                                                                                  {BertClass::bert2, "BERT2"},
                                                                                  {BertClass::bert3, "BERT3"},
                                                                                  {BertClass::bert4, "BERT4"},
                                                                                  {BertClass::bert5, "BERT5"},
                                                                                  {BertClass::bert6, "BERT6"},
                                                                                  {BertClass::bert7, "BERT7"},
                                                                                  {BertClass::bert5_both, "BERT5_BOTH"}}};
  static constexpr std::string_view kWhat = "variant of the BERT head";
};

/// What BERT5_BOTH does about two slips of the authors' code; both give the same for one layer, up to the second position table.
enum class PairRule {
  repaired,  ///< each stream has its own positions, each layer reads the one before
  reference  ///< both streams add the first table, every layer reads the embedded tokens, so only the last one counts
};
template <>
struct EnumNames<PairRule> {
  static constexpr std::array<std::pair<PairRule, std::string_view>, 2> kTable{
      {{PairRule::repaired, "repaired"}, {PairRule::reference, "reference"}}};
  static constexpr std::string_view kWhat = "rule for two streams";
};

struct BertOptions {
  BertClass variant = BertClass::bert5;
  std::int64_t heads = 8;   ///< must divide the width of the tokens
  std::int64_t layers = 1;  ///< more than one scored lower in the paper
  double keep = 0.8;        ///< probability that a token is NOT masked while training; 1 switches masking off
  double dropout = 0.1;     ///< at five places; the embedding's stays 0.1 in the authors' code, here it is this one, too
  PairRule pair_rule = PairRule::repaired;  ///< BERT5_BOTH only

  bool operator==(const BertOptions&) const = default;

  /// What is wrong with them for tokens of this width, a sentence each that begins with `subject`.
  std::vector<std::string> problems(std::int64_t tokens, std::int64_t width, const std::string& subject) const;
};

/// Positions that are added to the N tokens of a sequence: pe[0 .. N), learned or, for BERT6, fixed. Then dropout.
///
/// Tensors of the four classes of the authors' code: BERTEmbedding (sinusoid): buffer `name` + position.pe; BERTEmbedding2, 3 (learned, of
/// other initial values): `name` + learnedPosition.pe [1, length, C]; BERTEmbedding4: also a_2 and b_2 beside it [length, C], positions a pe + b.
class BertEmbedding {
 public:
  void declare(TensorPlan& plan, const std::string& name, BertClass variant, std::int64_t length, std::int64_t width,
               double dropout, MaskPlaces& places);
  /// x [B, N, C], N at most `length`.
  at::Tensor forward(const at::Tensor& x, const HeadPass& pass) const;

 private:
  at::Tensor table_, gain_, bias_;
  double dropout_ = 0;
  std::uint32_t place_ = 0;
};

/// BERT over T tokens of width C: a learned classification token is put before them, positions are added, transformer blocks run over
/// the T + 1 tokens. Kalfaoglu, Kalkan, Alatan, "Late Temporal Modeling in 3D CNN Architectures with BERT for Action Recognition",
/// ECCV workshops 2020.
///
/// Masking (training): each token but the first is hidden, with probability 1 - keep, from the attention of all tokens of its row, in all
/// heads and layers alike. A hidden token keeps its own row, residual stream and output. There is no loss on it.
///
/// Tensors: `name` + clsToken, maskToken (BERT7), a_2, b_2 [1, 1, C] (BERT); embedding (BertEmbedding); transformer_blocks.<i>
/// (TransformerBlock).
class Bert {
 public:
  /// The options must be without problems.
  void declare(TensorPlan& plan, const std::string& name, const BertOptions& options, std::int64_t tokens, std::int64_t width,
               MaskPlaces& places);

  /// tokens [B, T, C]. Returns the sequence [B, T + 1, C]; a classifier reads [:, 0].
  at::Tensor forward(const at::Tensor& tokens, const HeadPass& pass) const;
  /// What enters the first block.
  at::Tensor embed(const at::Tensor& tokens, const at::Tensor& visible, const HeadPass& pass) const;

 private:
  BertOptions options_;
  std::int64_t tokens_ = 0;
  at::Tensor cls_, cls_gain_, cls_bias_, mask_token_;
  BertEmbedding embedding_;
  std::vector<TransformerBlock> blocks_;
  std::uint32_t visible_place_ = 0;
};

/// BERT5_BOTH: two streams of tokens, a mask for both, and in each block one attention map for both (PairedTransformerBlock). No model
/// of the authors uses it. Tensors: `name` + clsToken_rgb, clsToken_flow, embedding1, embedding2, transformer_blocks.<i>.
class BertPair {
 public:
  using Pair = PairedTransformerBlock::Pair;

  void declare(TensorPlan& plan, const std::string& name, const BertOptions& options, std::int64_t tokens, std::int64_t width,
               MaskPlaces& places);
  /// Two of [B, T, C]. Returns two of [B, T + 1, C].
  Pair forward(const Pair& tokens, const HeadPass& pass) const;

 private:
  BertOptions options_;
  std::int64_t tokens_ = 0;
  std::array<at::Tensor, 2> cls_;
  std::array<BertEmbedding, 2> embeddings_;
  std::vector<PairedTransformerBlock> blocks_;
  std::uint32_t visible_place_ = 0;
};

}  // namespace fusion
