#include <memory>

#include "space/manifest_files.h"
#include "tools/api.h"
#include "tools/api_parts.h"

namespace fusion {

using nlohmann::json;

namespace {

/// The server sends the part that is asked for (workers/dispatch/byte_range.h); the tag lets an interrupted fetch go on.
HttpResponse blob(const std::string& digest, const std::string& file) {
  HttpResponse response;
  response.content_type = "application/octet-stream";
  response.file = file;
  response.headers = {{"ETag", "\"" + digest + "\""}};
  return response;
}

}  // namespace

bool Api::route_blobs(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond) {
  if (path.size() != 2 || path[0] != "blobs" || (request.method != "GET" && request.method != "HEAD")) return false;
  const std::string& digest = path[1];
  if (!is_digest(digest)) throw ConfigError("blob: expected a digest of 64 lower-case hexadecimal digits, got \"" + digest + "\"");
  if (const auto known = blobs_->files.find(digest); known != blobs_->files.end()) {
    respond(blob(digest, known->second));
    return true;
  }
  const auto found = std::make_shared<std::shared_ptr<const BlobTable>>();  // written by the reader, then read here
  parts_.readers.async(
      parts_.io,
      [found, known = blobs_, roots = parts_.data_roots](const StoreReader& reader) {
        *found = find_blobs(reader, roots, known);
        return json();
      },
      [this, found, digest, respond = std::move(respond)](json, std::exception_ptr error) {
        if (error) return respond(refusal(500, error));
        blobs_ = *found;
        if (const auto known = blobs_->files.find(digest); known != blobs_->files.end()) return respond(blob(digest, known->second));
        const auto problem = blobs_->problems.find(digest);
        respond(refusal(404, std::vector<std::string>{problem != blobs_->problems.end()
                                                          ? problem->second
                                                          : "no dataset of a study or retraining here has a file with the digest " + digest +
                                                                " below the daemon's data roots"}));
      });
  return true;
}

}  // namespace fusion
