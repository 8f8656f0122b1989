#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fusion {

/// What `fusionctl certs` is asked for.
struct CertificateOrder {
  std::filesystem::path folder;
  std::vector<std::string> hosts;  ///< names and addresses of the server, the first names the files; localhost, 127.0.0.1 and ::1 are added
  int days = 825;                  ///< of the server's certificate, cut to the authority's end
  int authority_days = 3'650;      ///< of a new authority
  bool force = false;              ///< replace the server's certificate and key; an authority is never replaced
};

struct CertificateFiles {
  std::filesystem::path authority, authority_key, certificate, key;
  std::vector<std::string> names;  ///< that the certificate is for
  bool new_authority = false;
  std::string expires;  ///< "2028-03-01 12:00:00 UTC"
};

/// A private authority (ca.pem, ca-key.pem), made on the first call and used again on later ones, and a server certificate of it
/// (HOST.pem with the authority's behind it, HOST-key.pem). Keys are elliptic (P-256) and mode 0600.
///
/// Throws ConfigError with every problem before anything is written: a host that is none, days out of range, a file that is there already and
/// no `force`, an authority in the folder that does not fit its key or has expired. Throws DataError where a file cannot be written.
CertificateFiles make_certificates(const CertificateOrder& order);

}  // namespace fusion
