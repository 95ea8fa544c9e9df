"""The words that operator and runtime share: refs, states, messages, names and codes.

Rules: imports only the standard library, msgspec and (in `client`) urllib3; never torch, numpy or sqlite3; never
`eyas_operator` or `eyas_runtime`. Everything here describes samples; nothing here can hold a tensor.
"""
