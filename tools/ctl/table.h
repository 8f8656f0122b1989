#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/ctl/terminal.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

struct Column {
  std::string title;
  Align align = Align::left;
  bool flexible = false;  ///< may be cut (with an ellipsis) where the terminal is too narrow
  bool optional = false;  ///< left out, title and all, where no row has a text in it
};

struct Cell {
  std::string text;
  Style style = Style::plain;
  Cell(std::string cell_text, Style cell_style = Style::plain) : text(std::move(cell_text)), style(cell_style) {}
  Cell(const char* cell_text) : text(cell_text) {}
};

/// Rows under titles, two blanks between columns, no blanks at the ends of lines. Widths are those of the widest cell; on a
/// terminal the flexible columns give way, the widest first, down to eight columns each.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// As many cells as there are columns. Texts are made safe by `one_line`.
  void add(std::vector<Cell> row);
  bool empty() const { return rows_.empty(); }
  /// Every line ends in a newline; the titles are bold on a terminal.
  std::string text(const Terminal& terminal) const;

 private:
  std::vector<std::size_t> shown_columns() const;
  std::vector<std::size_t> widths(const std::vector<std::size_t>& shown, std::size_t limit) const;

  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

/// What is known of one thing, a line each: `name   text`, names padded alike. Long texts are not cut.
class Facts {
 public:
  void add(std::string name, std::string text);
  std::string text() const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

}  // namespace fusion::ctl
