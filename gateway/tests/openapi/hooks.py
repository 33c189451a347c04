"""Makes of valid requests such as are valid at this moment: what no schema can say."""

import json

import schemathesis

FAR = 4_102_444_800


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@schemathesis.hook
def before_call(context, case, kwargs):
    """Times that have passed are refused, and so are reasons that clients could not tell from none."""
    body = case.body
    meta = getattr(case, "meta", None)
    if not isinstance(body, dict) or (meta is not None and meta.generation.mode.is_negative):
        return
    expire_at = body.get("expire_at")
    if isinstance(expire_at, (int, float)) and 0 < expire_at < FAR:
        body["expire_at"] = FAR
    told = body.get("disconnect")
    reason = told.get("reason") if isinstance(told, dict) else None
    if isinstance(reason, str) and (is_json(reason) or len(reason.encode(errors="replace")) > 123):
        told["reason"] = "moved"
