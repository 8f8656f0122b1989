#include "tools/ctl/table.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

namespace fusion::ctl {

namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kNarrowest = 8;

}  // namespace

void Table::add(std::vector<Cell> row) {
  if (row.size() != columns_.size()) throw std::logic_error("a row of a table needs a cell per column");
  for (Cell& cell : row) cell.text = one_line(cell.text);
  rows_.push_back(std::move(row));
}

std::vector<std::size_t> Table::shown_columns() const {
  std::vector<std::size_t> shown;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    const auto has_text = [&](const std::vector<Cell>& row) { return !row[c].text.empty(); };
    if (!columns_[c].optional || std::any_of(rows_.begin(), rows_.end(), has_text)) shown.push_back(c);
  }
  return shown;
}

std::vector<std::size_t> Table::widths(const std::vector<std::size_t>& shown, std::size_t limit) const {
  std::vector<std::size_t> width;
  for (const std::size_t c : shown) {
    width.push_back(display_width(columns_[c].title));
    for (const auto& row : rows_) width.back() = std::max(width.back(), display_width(row[c].text));
  }
  if (limit == 0 || shown.empty()) return width;
  std::size_t total = std::accumulate(width.begin(), width.end(), kGap * (width.size() - 1));
  while (total > limit) {
    std::size_t widest = shown.size();
    for (std::size_t i = 0; i < shown.size(); ++i) {
      const bool gives = columns_[shown[i]].flexible && width[i] > kNarrowest;
      if (gives && (widest == shown.size() || width[i] >= width[widest])) widest = i;
    }
    if (widest == shown.size()) break;  // nothing gives way any more: lines wrap
    --width[widest];
    --total;
  }
  return width;
}

std::string Table::text(const Terminal& terminal) const {
  const std::vector<std::size_t> shown = shown_columns();
  const std::vector<std::size_t> width = widths(shown, terminal.width);
  std::string text;
  const auto line = [&](const auto& cell_of) {
    std::string pending;  // blanks that are written only if something follows them
    for (std::size_t i = 0; i < shown.size(); ++i) {
      const Cell cell = cell_of(shown[i]);
      const std::string cut = truncated(cell.text, width[i]);
      const std::string blanks(width[i] - display_width(cut), ' ');
      if (columns_[shown[i]].align == Align::right) pending += blanks;
      if (!cut.empty()) {
        text += pending + styled(cut, cell.style, terminal);
        pending.clear();
      }
      if (columns_[shown[i]].align == Align::left) pending += blanks;
      pending.append(kGap, ' ');
    }
    text += '\n';
  };
  line([&](std::size_t c) { return Cell(columns_[c].title, Style::bold); });
  for (const auto& row : rows_) {
    line([&](std::size_t c) { return row[c]; });
  }
  return text;
}

void Facts::add(std::string name, std::string text) { facts_.emplace_back(std::move(name), one_line(text)); }

std::string Facts::text() const {
  std::size_t width = 0;
  for (const auto& [name, value] : facts_) width = std::max(width, display_width(name));
  std::string text;
  for (const auto& [name, value] : facts_) {
    text += "  " + padded(name, width, Align::left) + "  " + value + "\n";
  }
  return text;
}

}  // namespace fusion::ctl
