#include "security/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/files.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

const Peer kOwner{true, ::geteuid()};
const Peer kOtherUser{true, ::geteuid() + 1};
const Peer kNobodyKnows{true, std::nullopt};
const Peer kNetwork{false, std::nullopt};

struct Tokens {
  testing::TemporaryFolder folder;
  std::filesystem::path file = folder / "tokens.json";
  TokenTable table;
  std::string make(Role role) {
    const IssuedToken token = issue_token(role, std::string(name_of(role)), 1);
    table.add(token.record);
    table.save(file);
    return token.text;
  }
};

TEST(AccessTest, WithoutTokensOnlyTheOwnUserIsServedAndOnlyOverLoopback) {
  const Access access;
  EXPECT_EQ(access.rule(), LoopbackRule::same_user);
  for (const char* path : {"/api/v1/studies", "/api/v1/worker", "/api/v1/shutdown", "/metrics"}) {
    EXPECT_EQ(access.admit("", "POST", path, kOwner).refused, 0) << path;
    EXPECT_EQ(access.admit("", "POST", path, kOtherUser).refused, 403) << path;
    EXPECT_EQ(access.admit("", "POST", path, kNobodyKnows).refused, 403) << path;
    EXPECT_EQ(access.admit("", "POST", path, kNetwork).refused, 401) << path;
  }
  EXPECT_THAT(access.admit("", "GET", "/api/v1/studies", kOtherUser).sentence, HasSubstr("user " + std::to_string(::geteuid() + 1)));
  EXPECT_EQ(access.admit("Bearer x", "GET", "/api/v1/studies", kOwner).refused, 0) << "there is nothing to compare it with";
  EXPECT_EQ(access.admit("Bearer x", "GET", "/api/v1/studies", kOtherUser).refused, 403);
}

TEST(AccessTest, EachRoleMayWhatItIsForAndNothingElse) {
  Tokens tokens;
  const std::string read = "Bearer " + tokens.make(Role::read), submit = "bearer " + tokens.make(Role::submit),
                    worker = "BEARER  " + tokens.make(Role::worker);
  const Access access(tokens.file, LoopbackRule::token);
  EXPECT_EQ(access.rule(), LoopbackRule::token);
  struct Case {
    const char *method, *path;
    int read, submit, worker;
  };
  const Case cases[] = {{"GET", "/api/v1/studies", 0, 0, 403},        {"HEAD", "/", 0, 0, 403},
                        {"GET", "/metrics", 0, 0, 403},               {"POST", "/api/v1/query", 0, 0, 403},
                        {"POST", "/api/v1/studies", 403, 0, 403},     {"POST", "/api/v1/shutdown", 403, 0, 403},
                        {"DELETE", "/api/v1/query", 403, 0, 403},     {"POST", "/api/v1/query/", 403, 0, 403},
                        {"GET", "/api/v1/worker", 403, 403, 0},       {"GET", "/api/v1/blobs/ab", 0, 0, 0},
                        {"PUT", "/api/v1/blobs/ab", 403, 0, 403},     {"GET", "/api/v1/blobs", 0, 0, 403},
                        {"GET", "/api/v1/worker/x", 0, 0, 403},       {"GET", "/api/v1/health", 0, 0, 0},
                        {"GET", "/api/v1/retrainings/1/files", 403, 403, 0}, {"PUT", "/api/v1/retrainings/1/files/a", 403, 403, 0},
                        {"GET", "/api/v1/retrainings/1", 0, 0, 403},         {"GET", "/api/v1/retrainings/1/filesx", 0, 0, 403},
                        {"POST", "/api/v1/retrainings/files/1", 403, 0, 403}};
  for (const Case& c : cases) {
    for (const Peer& peer : {kOwner, kNetwork}) {
      EXPECT_EQ(access.admit(read, c.method, c.path, peer).refused, c.read) << c.method << " " << c.path;
      EXPECT_EQ(access.admit(submit, c.method, c.path, peer).refused, c.submit) << c.method << " " << c.path;
      EXPECT_EQ(access.admit(worker, c.method, c.path, peer).refused, c.worker) << c.method << " " << c.path;
    }
  }
}

TEST(AccessTest, NoTokenAWrongOneAndAnotherSchemeAreUnauthorized) {
  Tokens tokens;
  const std::string good = tokens.make(Role::submit);
  for (const auto rule : {LoopbackRule::token, LoopbackRule::same_user}) {
    const Access access(tokens.file, rule);
    for (const std::string& text : {std::string("Bearer"), std::string("Bearer "), "Basic " + good, good, "Bearer " + good + "x", std::string("x")}) {
      EXPECT_EQ(access.admit(text, "GET", "/api/v1/studies", kOwner).refused, 401) << text;
      EXPECT_EQ(access.admit(text, "GET", "/healthz", kOwner).refused, 401) << text;
    }
    EXPECT_EQ(access.admit("", "GET", "/api/v1/studies", kNetwork).refused, 401);
    EXPECT_EQ(access.admit("", "GET", "/api/v1/studies", kOwner).refused, rule == LoopbackRule::token ? 401 : 0);
  }
}

TEST(AccessTest, HealthIsForEverybodyButTellsStrangersNothing) {
  Tokens tokens;
  const std::string read = "Bearer " + tokens.make(Role::read);
  const Access closed(tokens.file, LoopbackRule::token), open;
  for (const char* path : {"/api/v1/health", "/healthz", "/readyz"}) {
    for (const Access* access : {&closed, &open}) {
      const Admission stranger = access->admit("", "GET", path, kNetwork);
      EXPECT_EQ(stranger.refused, 0);
      EXPECT_FALSE(stranger.known);
      EXPECT_FALSE(access->admit("", "GET", path, kOtherUser).known);
    }
    EXPECT_TRUE(closed.admit(read, "GET", path, kNetwork).known);
    EXPECT_TRUE(open.admit("", "GET", path, kOwner).known);
    EXPECT_EQ(closed.admit("", "POST", path, kNetwork).refused, 401);
  }
}

TEST(AccessTest, WhatIsRevokedIsOutAfterAReloadAndABrokenFileChangesNothing) {
  Tokens tokens;
  const std::string kept = "Bearer " + tokens.make(Role::read), revoked = "Bearer " + tokens.make(Role::worker);
  Access access(tokens.file, LoopbackRule::token);
  const std::string own = "Bearer " + access.local_worker_token();
  EXPECT_EQ("Bearer " + access.local_worker_token(), own);
  const std::string id = access.admit(revoked, "GET", "/api/v1/worker", kNetwork).token_id;
  EXPECT_TRUE(access.is_valid(id));
  EXPECT_TRUE(access.is_valid("")) << "the own user";
  tokens.table.remove(id);
  tokens.table.save(tokens.file);
  EXPECT_TRUE(access.is_valid(id)) << "not read yet";
  EXPECT_TRUE(access.reload_if_changed());
  EXPECT_FALSE(access.reload_if_changed());
  EXPECT_FALSE(access.is_valid(id));
  EXPECT_EQ(access.admit(revoked, "GET", "/api/v1/worker", kNetwork).refused, 401);
  EXPECT_EQ(access.admit(kept, "GET", "/", kNetwork).refused, 0);
  EXPECT_EQ(access.admit(own, "GET", "/api/v1/worker", kNetwork).refused, 0) << "the daemon's own workers go on";
  EXPECT_EQ(access.tokens(), 1u);
  write_atomically(tokens.file, "{");
  ::chmod(tokens.file.c_str(), 0600);
  EXPECT_THROW(access.reload_if_changed(), ConfigError);
  EXPECT_FALSE(access.reload_if_changed()) << "said once";
  EXPECT_THROW(access.reload(), ConfigError);
  EXPECT_EQ(access.admit(kept, "GET", "/", kNetwork).refused, 0);
}

}  // namespace
}  // namespace fusion
