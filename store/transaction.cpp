#include "store/transaction.h"

#include <exception>
#include <utility>

#include "base/error.h"
#include "store/database.h"

namespace fusion {

// Savepoints of one name nest; RELEASE and ROLLBACK TO mean the innermost.
Transaction::Transaction(Database& database, Kind kind) : database_(&database), kind_(kind) {
  switch (kind) {
    case Kind::write: database.execute("BEGIN IMMEDIATE"); break;
    case Kind::read: database.execute("BEGIN"); break;
    case Kind::savepoint:
      // Outside a transaction SAVEPOINT would begin one, and RELEASE commit it.
      if (!database.in_transaction()) throw StoreError(database.path() + ": a savepoint needs an open transaction");
      database.execute("SAVEPOINT part");
      break;
  }
}

Transaction::Transaction(Transaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)), kind_(other.kind_) {}

Transaction::~Transaction() {
  if (database_ == nullptr || !database_->in_transaction()) return;
  try {
    database_->execute(kind_ == Kind::savepoint ? "ROLLBACK TO part; RELEASE part" : "ROLLBACK");
  } catch (const std::exception&) {
    // A destructor does not throw; what could not be undone now is undone when the connection closes.
  }
}

void Transaction::commit() {
  database_->execute(kind_ == Kind::savepoint ? "RELEASE part" : "COMMIT");
  database_ = nullptr;
}

}  // namespace fusion
