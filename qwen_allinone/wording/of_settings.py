"""What each setting means: by its name, in Chinese and in English. docs/settings.md and its Chinese twin say the same.

No part of the catalogue that `said` looks into: only a list of the settings needs it, and imports it.
"""

from __future__ import annotations

OF_SETTINGS: dict[str, tuple[str, str]] = {
    "model": (
        "hub 上的模型 id、本地文件夹，或 `demo`（项目自带的模型）",
        "Hub id, local folder, or `demo` (the model that ships with the project)",
    ),
    "model_revision": (
        "hub 模型的分支、标签或提交",
        "Branch, tag or commit of the hub model",
    ),
    "weights": (
        "`fp32`；`fp16`：内存减半，运算仍为 FP32；`int8`：内存四分之一，最快，结果是近似的",
        "`fp32`; `fp16`: half the memory, arithmetic still FP32; `int8`: a quarter, fastest, approximate",
    ),
    "kernels": (
        "`auto`：本机能用时使用项目自带的内核，否则用 torch 的；`torch`：只用 torch 的",
        "`auto`: the project's own kernels where they run here, else torch's; `torch`: torch's",
    ),
    "kv": (
        "键和值：`fp32`；`fp16`：内存减半，结果是近似的；`auto`：权重为 `int8` 时用 `fp16`",
        "Keys and values: `fp32`; `fp16`: half their memory, approximate; `auto`: `fp16` with `int8` weights",
    ),
    "packed_dir": (
        "存放打包后权重文件的文件夹，文件与权重一样大：各 worker 在内存中共用一份，启动更快；需要 `QAIO_KERNELS=auto`",
        (
            "Folder for a file of packed weights, as large as they are: workers then share one copy in memory, "
            "and starts are faster; with `QAIO_KERNELS=auto`"
        ),
    ),
    "drafts": (
        "`auto`：回复重复前文时所需的步数更少，仅在划算且不改变结果时使用；`off`：每步一个 token",
        (
            "`auto`: replies that repeat what came before take fewer steps, where that pays and changes nothing; "
            "`off`: a step a token"
        ),
    ),
    "prompts": (
        "任务所在的文件夹，每个任务一个子文件夹",
        "Folder of the tasks, one folder each",
    ),
    "prompts_kept": (
        "保存曾经生效的各版任务的文件夹",
        "Folder where the versions of the tasks that were in force are kept",
    ),
    "prompts_may_lose": (
        "重新加载时，一个任务的标准用例正确率最多可以下降多少；降得更多就拒绝重新加载；1：从不拒绝",
        "Share of its gold cases that a task may lose at a reload; more: the reload is refused; 1: never",
    ),
    "fit": (
        "标签任务怎样适应模型：按标准用例（`gold`），按对空内容的回答（`contextual`），或不适应（`off`）",
        (
            "Label tasks are fitted to the model by their gold cases (`gold`), by what they answer to nothing "
            "(`contextual`), or not (`off`)"
        ),
    ),
    "fit_s": (
        "启动时最多用多少秒来适应；没轮到的任务，照模型原样回答",
        "Seconds a start may take to fit; what is left answers as the model has it",
    ),
    "fit_file": (
        "用时超过一秒的适应结果存在这个文件里，供下次启动使用",
        "File where fits that took over a second are kept for the next start",
    ),
    "host": (
        (
            "监听的地址；不设置时：要求密钥或令牌就是 `0.0.0.0`（所有地址），否则是 `127.0.0.1`（只限本机）；"
            "`::` 表示所有地址，包括 IPv6"
        ),
        (
            "Address to listen on; unset: `0.0.0.0`, every address, where keys or tokens are asked for, "
            "otherwise `127.0.0.1`, this machine alone; `::` is every address, IPv6 too"
        ),
    ),
    "port": (
        "监听的端口",
        "Port to listen on",
    ),
    "workers": (
        "Gunicorn 的 worker 数；每个 worker 各有一份模型",
        "Gunicorn workers; each holds a copy of the model",
    ),
    "threads": (
        "每个 worker 的计算线程数；0：CPU 配额除以 worker 数",
        "Compute threads per worker; 0: CPU quota divided by workers",
    ),
    "slots": (
        "每个 worker 同时计算的请求数",
        "Requests computed at the same time, per worker",
    ),
    "context": (
        "最长的序列，单位 token，提示和回复合计",
        "Longest sequence in tokens, prompt and reply together",
    ),
    "kv_tokens": (
        "每个 worker 在内存里保留的键和值，单位 token，所有槽位合计",
        "Tokens of keys and values kept in memory per worker, all slots together",
    ),
    "step_tokens": (
        "一次前向计算最多的 token 数；长提示会被切开",
        "Most tokens one forward pass computes; long prompts are cut",
    ),
    "share_tokens": (
        "有其他调用者时，一次前向计算最多计算同一调用者的多少个提示 token",
        "Most tokens of one caller's prompts that a forward pass computes while other callers are about",
    ),
    "caller_slots": (
        "同一调用者最多占一个 worker 的百分之多少个槽位；总有一个留给别人",
        "Most of a worker's slots that one caller may have, in percent; one is always left to others",
    ),
    "max_waiting": (
        "每个 worker 中可以排队等槽位的请求数；超出：503",
        "Requests that may wait for a slot, per worker; beyond: 503",
    ),
    "deadline_s": (
        "一个请求最多用时，单位秒",
        "Longest time a request may take, in seconds",
    ),
    "grace_s": (
        "停止时最多等已接纳的请求多久，单位秒；0：`QAIO_DEADLINE_S` + 5",
        "Longest time a stop waits for admitted requests; 0: `QAIO_DEADLINE_S` + 5",
    ),
    "stuck_s": (
        "一次前向计算超过这个时间（秒），就换掉这个 worker",
        "A forward pass that takes longer, in seconds, has the worker replaced",
    ),
    "ping_s": (
        "流中停顿多久（秒）就发一个 `: ping` 保持连接",
        "Pause in a stream, in seconds, after which a `: ping` keeps it open",
    ),
    "keepalive_s": (
        "空闲连接保留的秒数；应大于代理自己的空闲时间",
        "Seconds an idle connection is kept; set it above a proxy's own idle time",
    ),
    "max_body_bytes": (
        "请求体的最大字节数；超出：413",
        "Largest request body in bytes; beyond: 413",
    ),
    "model_aliases": (
        "OpenAI 客户端也可以用来称呼这个模型的其他名字，用逗号分隔",
        "Further names under which OpenAI's clients may ask for the model, comma-separated",
    ),
    "allowed_hosts": (
        (
            "以哪些主机名应答，用逗号分隔，`.example.com` 包括其下所有名字，`*` 是任何名字；IP 地址和 "
            "`localhost` 总是可以。不设：任何名字；但监听 `127.0.0.1` 又没有密钥或令牌时，除非经过信任的代理，"
            "任何名字都不应答"
        ),
        (
            "Host names this answers under, comma-separated, `.example.com` with all below it, `*` any; "
            "addresses and `localhost` always. Unset: any, but on `127.0.0.1` without keys or tokens none, save "
            "through trusted proxies"
        ),
    ),
    "cors_origins": (
        "哪些网站的网页可以调用本服务：`https://app.example.com`，用逗号分隔；`*`：所有网站",
        "Sites whose web pages may call this: `https://app.example.com`, comma-separated; `*`: every site",
    ),
    "api_keys_file": (
        "API 密钥文件（`qwen-allinone keys new NAME`）；设置后，调用需要密钥或令牌",
        "File of API keys (`qwen-allinone keys new NAME`); with it, calls need a key or token",
    ),
    "jwt_algorithm": (
        "JSON Web Token 唯一允许的算法：`RS256`、`ES256` 或 `HS256`；需要同时设置下面三项",
        "The one algorithm of JSON web tokens: `RS256`, `ES256` or `HS256`; needs the next three",
    ),
    "jwt_key_file": (
        "验证令牌的公钥（PEM），或 `HS256` 的密钥，至少 32 字节",
        "Public key (PEM) that verifies tokens, or the secret of `HS256`, 32 bytes at least",
    ),
    "jwt_issuer": (
        "令牌必须带有的 `iss`",
        "The `iss` that tokens must carry",
    ),
    "jwt_audience": (
        "令牌必须带有的 `aud`",
        "The `aud` that tokens must carry",
    ),
    "trusted_proxies": (
        "信任其 `X-Forwarded-For` 的代理：地址或网段，用逗号分隔",
        "Proxies whose `X-Forwarded-For` is believed: addresses or networks, comma-separated",
    ),
    "rate_requests": (
        "每个调用者每分钟的请求数；超出：429；0：不限",
        "Requests a minute for each caller; beyond: 429; 0: no limit",
    ),
    "rate_tokens": (
        "每个调用者每分钟生成的 token 数；超出：429；0：不限",
        "Generated tokens a minute for each caller; beyond: 429; 0: no limit",
    ),
    "redis_url": (
        (
            "各 worker 共同计数、共享答案的 Redis 或 Valkey，没有设置 `QAIO_STATE_URL` 时也保存会话和记忆；"
            "不设置时，每个 worker 各自计数、各自记忆"
        ),
        (
            "Redis or Valkey where workers count and remember together, and, without `QAIO_STATE_URL`, conversations "
            "and memories are kept; without it each worker counts and remembers alone"
        ),
    ),
    "state_url": (
        "保存会话、记忆、用量和幂等键的 PostgreSQL，代替文件或 Redis；需要安装 `requirements-postgres.txt`",
        (
            "PostgreSQL where conversations, memories, usage and idempotency keys are kept, rather than in a file or "
            "Redis; needs `requirements-postgres.txt`"
        ),
    ),
    "sessions_file": (
        (
            "会话和记忆的文件（SQLite；须在本地磁盘上），首次用到时创建；设置了 `QAIO_STATE_URL` 或 "
            "`QAIO_REDIS_URL` 时不用"
        ),
        (
            "File of conversations and memories (SQLite; local disk), made when first needed; unused with "
            "`QAIO_STATE_URL` or `QAIO_REDIS_URL`"
        ),
    ),
    "sessions_max_mb": (
        "会话文件最多占多少 MB；超出：会话请求得到 503",
        "Most MB the file of conversations may take; beyond: 503 for conversations",
    ),
    "sessions_key_mb": (
        "一个密钥或令牌的会话最多占多少 MB；超出：它的会话请求得到 429",
        "Most MB that the conversations of one key or token may take; beyond: 429 for its conversations",
    ),
    "session_ttl_s": (
        "会话在最后一次使用之后多少秒被忘记",
        "Seconds after its last use at which a conversation is forgotten",
    ),
    "session_turns": (
        "一个会话最多多少轮；超出：400",
        "Turns a conversation may have; beyond: 400",
    ),
    "memory": (
        "`1`：记住用户讲到的自己的情况，见 [memory.md](memory.md)",
        "`1`: what users tell of themselves is remembered, see [memory.md](memory.md)",
    ),
    "memory_items": (
        "一个用户最多多少条记忆；超出：最旧的让位，已被取代的先让",
        "Memories of one user; beyond, the oldest make room, replaced ones first",
    ),
    "memory_key_mb": (
        "一个密钥或令牌的全部用户的记忆最多占多少 MB；超出：它的用户的请求得到 429",
        "Most MB that the memories of all users of one key or token may take; beyond: 429 for its users",
    ),
    "memory_ttl_s": (
        "一条记忆多少秒后被忘记，除非又说到",
        "Seconds after which a memory is forgotten unless said again",
    ),
    "memory_chat_completions": (
        (
            "`1`：`/v1/chat/completions` 的 `user` 就是记忆所属的人，既用也记，除非请求带 `memory: false`；需要 "
            "`QAIO_MEMORY=1`"
        ),
        (
            "`1`: `user` in `/v1/chat/completions` names whose memories are used and kept, unless a request says "
            "`memory: false`; needs `QAIO_MEMORY=1`"
        ),
    ),
    "feedback_file": (
        "标签任务的回答连同原文等待 `POST /v1/feedback` 一天的文件（SQLite，本地磁盘）；不设则不保存",
        (
            "File (SQLite; local disk) in which answers of label tasks wait a day for `POST /v1/feedback`, with "
            "their texts; unset: none is kept"
        ),
    ),
    "feedback_days": (
        "更正保留多少天",
        "Days for which feedback is kept",
    ),
    "feedback_max_mb": (
        "更正文件最多占多少 MB；超出时，占用最多的调用者最旧的回答先删除",
        "Most MB the file of feedback may take; beyond: the oldest answers of the caller who takes most go",
    ),
    "batch_at_once": (
        (
            "没有别的请求时，每个 worker 同时回答批处理的多少行；有客户端的请求时一行；0：不做批处理，见 "
            "[batches.md](batches.md)"
        ),
        (
            "Lines of batches that a worker answers at the same time, while nobody else wants it; beside a "
            "client's request one; 0: no batches, see [batches.md](batches.md)"
        ),
    ),
    "batches_file": (
        "批处理及其上传文件所在的文件（SQLite；须在本地磁盘上），首次用到时创建",
        "File of batches and of what was uploaded for them (SQLite; local disk), made when first needed",
    ),
    "batches_max_mb": (
        "批处理文件最多占多少 MB；超出：上传得到 503",
        "Most MB the file of batches may take; beyond: 503 for uploads",
    ),
    "batch_file_mb": (
        "一次上传最多多少 MB；超出：413",
        "Largest upload in MB; beyond: 413",
    ),
    "batch_key_mb": (
        "一个密钥或令牌的文件最多占多少 MB；超出：它的上传和批处理得到 429",
        "Most MB that the files of one key or token may take; beyond: 429 for its uploads and batches",
    ),
    "batch_key_lines": (
        "一个密钥或令牌没有做完的批处理最多共有多少行；超出：429；单个文件：413",
        "Most lines that the open batches of one key or token may have together; beyond: 429; of one file: 413",
    ),
    "batch_key_open": (
        "一个密钥或令牌最多有多少个没有做完的批处理；超出：429",
        "Most batches of one key or token that are not over yet; beyond: 429",
    ),
    "batch_days": (
        "文件和批处理多少天后被忘记",
        "Days after which files and batches are forgotten",
    ),
    "idempotency_ttl_s": (
        "回答在它的 `Idempotency-Key` 下保存多少秒",
        "Seconds for which an answer is kept under its `Idempotency-Key`",
    ),
    "idempotency_key_mb": (
        "每个密钥或令牌这样保存的回答最多多少 MB；超出：最旧的先删",
        "Most MB of answers kept so for one key or token; beyond: the oldest go",
    ),
    "usage_days": (
        "每个密钥或令牌的用量（`GET /v1/usage`）保存多少天，与会话放在一起；0：不保存",
        (
            "Days for which it is kept what each key or token has used (`GET /v1/usage`), beside conversations; "
            "0: not at all"
        ),
    ),
    "admins": (
        (
            "可以看到所有用量、试改提示词（`QAIO_PROMPT_EDIT`）、让服务重新加载适配器的密钥（名称）和令牌（"
            "`jwt:` 和它的 sub），用逗号分隔"
        ),
        (
            "Keys by their names, tokens as `jwt:` and their subject, that may see what all have used, edit "
            "prompts (`QAIO_PROMPT_EDIT`) and have adapters reloaded, comma-separated"
        ),
    ),
    "prompt_edit": (
        (
            "`1`：可以通过 HTTP 和网页用标准用例试改过的提示词，并存成新的文件夹，见 "
            "[page.md](page.md#prompt-bench)；要密钥的地方只有 `QAIO_ADMINS` 可以"
        ),
        (
            "`1`: changed prompts can be tried on their gold cases and saved as new folders over HTTP and on the "
            "page, see [page.md](page.md#prompt-bench); where keys are asked for, by `QAIO_ADMINS` alone"
        ),
    ),
    "shares": (
        "几个调用者同时排队时各占名额的份数：`alice=3, jwt:ops=2`，1 到 100；其余都是 1",
        "Shares of the slots while several callers wait: `alice=3, jwt:ops=2`, from 1 to 100; all others have 1",
    ),
    "priority_keys": (
        "可以提高自己请求优先级（`X-Priority`）的密钥（名称）和令牌（`jwt:` 和它的 sub），用逗号分隔",
        (
            "Keys by their names, tokens as `jwt:` and their subject, that may raise the priority of their "
            "requests (`X-Priority`), comma-separated"
        ),
    ),
    "cache_mb": (
        "每个 worker 用多少 MB 内存记住贪心任务的答案；0：每次都计算",
        "Memory per worker, in MB, for answers of greedy tasks; 0: all are computed",
    ),
    "cache_ttl_s": (
        "答案被记住的时间，单位秒",
        "Time for which an answer is remembered, in seconds",
    ),
    "alerts": (
        "报警规则和渠道的文件，见 [alerts.md](alerts.md)；不设置：不通知任何人",
        "File of rules and channels of alerts, see [alerts.md](alerts.md); unset: nobody is told",
    ),
    "alerts_outbox": (
        "待发报警的文件（SQLite，本地磁盘），首次需要时创建",
        "File of alerts on their way (SQLite; local disk), made when first needed",
    ),
    "alerts_networks": (
        "报警渠道可以访问的内网网段或地址，逗号分隔；公网地址总是可以访问",
        (
            "Private networks or addresses that channels of alerts may reach, comma-separated; public ones they "
            "may always"
        ),
    ),
    "log_level": (
        "显示的日志行的最低级别",
        "Least severe log lines shown",
    ),
    "log_format": (
        "每条记录一行：`json`、`text`；`auto`：stderr 是终端时用 text，否则用 json",
        "One line a record: `json`, `text`; `auto`: text if stderr is a terminal, else json",
    ),
    "log_text": (
        "在日志里记录用户写的和得到的文字，截到 500 个字符",
        "Log what users write and get, cut to 500 characters",
    ),
    "audit_file": (
        "审计文件（绝对路径），每个请求一行：谁、做了什么、什么时候；所在文件夹必须已存在",
        "File (absolute path) for one line a request: who, what, when; its folder must exist",
    ),
    "audit_max_mb": (
        "审计文件轮转的大小，单位 MB",
        "Size in MB at which the audit file is rotated",
    ),
    "audit_keep": (
        "保留多少个轮转出的审计文件；更早的会被删除",
        "Rotated audit files kept; older ones are deleted",
    ),
}
