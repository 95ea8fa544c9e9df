"""Read tokens, derived from the operator's own key: whoever holds the key can make them, and nobody reads them back.

Pure. A token is a function of the key, of what it is for and of the job, so every operator replica and every pass comes
to the same one, and one job's token opens no other job.
"""

import hashlib
import hmac


def derive(key: bytes, purpose: str, job_uid: str) -> str:
    """64 hexadecimal digits. `purpose` is the key of the Secret that carries the token, for example `reader.token`."""
    return hmac.new(key.strip(), f"{purpose}/{job_uid}".encode(), hashlib.sha256).hexdigest()
