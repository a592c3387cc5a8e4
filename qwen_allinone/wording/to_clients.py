"""What clients of the HTTP API are told: by name, in Chinese and in English. In braces is what is filled in."""

from __future__ import annotations

TO_CLIENTS: dict[str, tuple[str, str]] = {
    # engine/admission.py
    "too_late": (
        "按当前的排队情况，无法在要求的时限内完成，请稍后再试或放宽 X-Timeout-Ms",
        (
            "with the requests that wait already, this cannot be done within the time asked for: try again "
            "later, or give X-Timeout-Ms more"
        ),
    ),
    # engine/scheduler.py
    "more_than_context": (
        "输入加回复最多 {longest} 个 token，请缩短输入",
        "text and reply may have {longest} tokens together, shorten the text",
    ),
    # errors.py
    "empty": ("请输入内容", "give a text, there is nothing to work on"),
    "session_full": (
        '这个会话已有 {most} 轮，达到上限（每个会话最多 {most} 轮），请用 "session": true 开始新的会话，旧会话仍可读取',
        (
            "this conversation has {most} turns, which is the limit ({most} turns in each); start a new one with "
            '"session": true, the old one can still be read'
        ),
    ),
    "key_wrong": (
        "密钥无效或已过期，请检查密钥，或向管理员索取新的",
        "the key is wrong or has expired: check it, or ask your administrator for a new one",
    ),
    "key_missing": (
        "需要密钥，请放在请求头 Authorization: Bearer <密钥> 或 X-API-Key 中",
        "a key is needed: give it in the header Authorization: Bearer <key> or X-API-Key",
    ),
    "wait": ("{message}，请在 {retry_after} 秒后再试", "{message}; try again in {retry_after} seconds"),
    "sessions_full": (
        (
            "这个密钥的会话和回复已占满它的 {most_mb} MB，请删除不再需要的（DELETE /v1/sessions/<id>、DELETE "
            "/v1/responses/<id>），或等它们过期"
        ),
        (
            "the conversations and responses of this key take all of its {most_mb} MB: delete those that are no "
            "longer needed (DELETE /v1/sessions/<id>, DELETE /v1/responses/<id>), or wait until they expire"
        ),
    ),
    "memory_not_found": (
        "没有这条记忆，它可能已过期、被删除或属于别的用户",
        "there is no such memory: it may have expired, been deleted, or belong to another user",
    ),
    "memory_full": (
        (
            "这个密钥的用户的记忆已占满它的 {most_mb} MB，请删除不再需要的记忆（DELETE /v1/memory/<user>），"
            '或等它们过期；带 "memory": false 的对话不受影响'
        ),
        (
            "the memories of this key's users take all of its {most_mb} MB: delete those that are no longer "
            'needed (DELETE /v1/memory/<user>), or wait until they expire; conversations with "memory": false go '
            "on"
        ),
    ),
    "wrong_origin": (
        "网站 {origin!r} 的网页不能在这里上传文件：请由管理者把这个网站写进 QAIO_CORS_ORIGINS",
        (
            "web pages of {origin!r} may not upload files here: have the administrator put this site into "
            "QAIO_CORS_ORIGINS"
        ),
    ),
    "wrong_host": (
        "本服务不以主机名 {name!r} 应答：请用 IP 地址或 localhost，或由管理者把这个名字写进 QAIO_ALLOWED_HOSTS",
        (
            "this service does not answer under the host name {name!r}: use an IP address or localhost, or have "
            "the administrator put this name into QAIO_ALLOWED_HOSTS"
        ),
    ),
    "is_it": ("是不是 {meant!r}？", "did you mean {meant!r}? "),
    "unknown_task": (
        "没有名为 {name!r} 的任务，{asked}可用的任务有：{known}",
        "there is no task named {name!r}; {asked}there are: {known}",
    ),
    "unknown_model": (
        "没有名为 {name!r} 的模型，这里的模型是 {there}",
        "there is no model named {name!r}; the model here is {there}",
    ),
    "session_not_found": (
        '没有这个会话，它可能已过期、被删除或不属于当前密钥，请用 "session": true 开始新的会话',
        (
            "there is no such conversation: it may have expired, been deleted, or belong to another key; start a "
            'new one with "session": true'
        ),
    ),
    "answer_not_found": (
        (
            "没有这个请求的标签回答：request_id 是那个回答的响应头 X-Request-Id；回答保留一天，"
            "而且只属于当时的密钥；同一个任务在一次请求里问了几次的，不能更正"
        ),
        (
            "there is no answer with a label to this request: request_id is the header X-Request-Id of the "
            "answer; answers are kept for a day, for the key that asked alone; a task that one request asked "
            "several times cannot be corrected"
        ),
    ),
    "feedback_off": (
        "这里没有保存回答供更正，请管理者设置 QAIO_FEEDBACK_FILE",
        "answers are not kept for feedback here: the administrator sets QAIO_FEEDBACK_FILE",
    ),
    "memory_off": (
        "这个服务没有开启记忆，请管理者设置 QAIO_MEMORY=1",
        "nothing is remembered of users here: the administrator sets QAIO_MEMORY=1",
    ),
    "usage_off": (
        "这里不保存用量，请管理者设置 QAIO_USAGE_DAYS",
        "usage is not kept here: the administrator sets QAIO_USAGE_DAYS",
    ),
    "usage_forbidden": (
        "这个密钥只能看自己的用量，请去掉 key，或由管理者把它写进 QAIO_ADMINS",
        "this key may see its own usage only: leave out key, or have the administrator put it into QAIO_ADMINS",
    ),
    "prompts_forbidden": (
        "这个密钥不能试改提示词，请换一个，或由管理者把它写进 QAIO_ADMINS",
        "this key may not try prompts: take another, or have the administrator put it into QAIO_ADMINS",
    ),
    "task_taken": (
        "已经有名为 {name} 的任务文件夹，请换一个名字",
        "there is a task folder named {name} already, take another name",
    ),
    "reload_forbidden": (
        "只有管理者可以让服务重新加载，请把这个密钥的名称写进 QAIO_ADMINS，没有密钥时先设置 QAIO_API_KEYS_FILE",
        (
            "only administrators may have the service reload: put the name of this key into QAIO_ADMINS, and "
            "where there are no keys set QAIO_API_KEYS_FILE first"
        ),
    ),
    "reload_off": (
        "这个服务不能通过接口重新加载，请检查 QAIO_PROMPTS_KEPT 可写且不与其他服务共用，或重启服务",
        (
            "this service cannot be reloaded by a request: see that QAIO_PROMPTS_KEPT can be written and is no "
            "other service's too, or start the service again"
        ),
    ),
    "reload_refused": (
        "没有重新加载，原来的继续使用，请先改正：{problem}",
        "nothing was reloaded and what there was goes on, correct this first: {problem}",
    ),
    "priority_forbidden": (
        "这个请求无权排到别人前面：请去掉 X-Priority，或由管理者把密钥写进 QAIO_PRIORITY_KEYS",
        (
            "this request may not go before others: leave out X-Priority, or have the administrator put the key "
            "into QAIO_PRIORITY_KEYS"
        ),
    ),
    "response_not_found": (
        "没有这个回复，它可能已过期、被删除、没有保存（store: false）或不属于当前密钥",
        (
            "there is no such response: it may have expired, been deleted, not been stored (store: false), or "
            "belong to another key"
        ),
    ),
    "file_not_found": (
        "没有这个文件，它可能已过期、被删除或不属于当前密钥",
        "there is no such file: it may have expired, been deleted, or belong to another key",
    ),
    "batch_not_found": (
        "没有这个批处理，它可能早已结束、被忘记或不属于当前密钥",
        "there is no such batch: it may have ended long ago, been forgotten, or belong to another key",
    ),
    "batches_off": (
        "这里不做批处理，请管理者设置 QAIO_BATCH_AT_ONCE",
        "no batches are worked off here: the administrator sets QAIO_BATCH_AT_ONCE",
    ),
    "file_in_use": (
        "批处理 {batch} 正在用这个文件，请等它做完，或先取消它（POST /v1/batches/{batch}/cancel）",
        "batch {batch} is using this file: wait until it is done, or cancel it first (POST /v1/batches/{batch}/cancel)",
    ),
    "batch_over": (
        "这个批处理已经结束（{status}），不能再取消",
        "this batch has ended ({status}) and can no longer be cancelled",
    ),
    "session_busy": (
        "这个会话正在处理另一个请求，请等它完成，在 {retry_after} 秒后再试",
        (
            "this conversation is answering another request: wait until that is done and try again in "
            "{retry_after} seconds"
        ),
    ),
    "once_busy": (
        "带有这个 Idempotency-Key 的请求正在处理，请在 2 秒后再试，届时得到同一个回答",
        "a request with this Idempotency-Key is being answered: try again in 2 seconds to get the same answer",
    ),
    "once_mismatch": (
        "这个 Idempotency-Key 已用于另一个请求，不同的请求请用不同的键",
        "this Idempotency-Key was used for another request: use another one for each request",
    ),
    "internal_error": ("服务内部出错，请稍后再试", "something went wrong in the service, try again later"),
    "server_busy": ("当前请求太多，请稍后再试", "too many requests at the moment, try again later"),
    "not_ready": ("模型尚未就绪，请稍后再试", "the model is not ready yet, try again later"),
    "draining": ("服务正在停止，请稍后再试", "the service is stopping, try again later"),
    "engine_stuck": (
        "模型计算卡住，服务正在自动恢复，请稍后再试",
        "the model hangs and the service is recovering by itself, try again later",
    ),
    "sessions_unavailable": (
        (
            "会话记录暂时无法读写，已保存的内容不受影响，请稍后再试；不带会话的请求不受影响，/v1/responses 请带 "
            "store: false"
        ),
        (
            "conversations can be neither read nor written at the moment; what was kept is safe, try again "
            "later; requests without a conversation go on, and so does /v1/responses with store: false"
        ),
    ),
    "once_unavailable": (
        "暂时无法保证同一请求只回答一次，请稍后再试；不带 Idempotency-Key 的请求不受影响",
        (
            "it cannot be made sure at the moment that the same request is answered only once, try again later; "
            "requests without an Idempotency-Key go on"
        ),
    ),
    "batches_unavailable": (
        "批处理和它的文件暂时无法读写，已保存的内容不受影响，请稍后再试；别的请求不受影响",
        (
            "batches and their files can be neither read nor written at the moment; what was kept is safe, try "
            "again later; other requests go on"
        ),
    ),
    "outbox_unavailable": (
        "报警暂时无法读写，已保存的内容不受影响；请求不受影响",
        "alerts can be neither read nor written at the moment; what was kept is safe, and requests go on",
    ),
    "memory_unavailable": (
        '记忆暂时无法读写，已保存的内容不受影响，请稍后再试；带 "memory": false 的请求不受影响',
        (
            "memories can be neither read nor written at the moment; what was kept is safe, try again later; "
            'requests with "memory": false go on'
        ),
    ),
    "usage_unavailable": (
        "用量暂时无法读写，已保存的内容不受影响，请稍后再试；别的请求不受影响",
        (
            "usage can be neither read nor written at the moment; what was kept is safe, try again later; other "
            "requests go on"
        ),
    ),
    "feedback_unavailable": (
        "更正暂时无法读写，请稍后再试；别的请求不受影响",
        "feedback can be neither read nor written at the moment, try again later; other requests go on",
    ),
    "prompts_unwritable": (
        "任务文件夹里写不进新的文件夹，请管理者让服务能够写入 QAIO_PROMPTS",
        "no folder can be made where the tasks are: the administrator lets the service write to QAIO_PROMPTS",
    ),
    "out_of_memory": (
        "内存不足，暂时无法处理，请稍后再试或缩短输入",
        "there is not enough memory for this at the moment, try again later or shorten the text",
    ),
    "deadline_exceeded": ("处理超时，请缩短输入或稍后再试", "it took too long, shorten the text or try again later"),
    "cancelled": ("请求已被取消", "the request was cancelled"),
    "engine_failed": ("模型计算出错，请重试", "the model's computation failed, try again"),
    "form_failed": (
        "这个任务的 schema 太复杂，无法逐字遵守，请管理员化简 schema",
        "this task's schema is too complex to follow to the letter: the administrator should make it simpler",
    ),
    # http/analyze.py
    "fitting_tasks": ("可用的任务有：{fitting}", "there are: {fitting}"),
    "no_tasks": ("tasks 不能为空，{allowed}", "tasks must not be empty; {allowed}"),
    "more_inputs": (
        "任务 {name} 除 text 外还需要别的输入，不能在这里使用，{allowed}",
        "the task {name} needs inputs besides text and cannot be used here; {allowed}",
    ),
    "task_twice": ("tasks 里有重复的任务，每个任务只写一次", "tasks holds a task twice: name each once"),
    # http/batch_lines.py
    "batch_stream": ("批处理里不能用 stream", "no stream in batches"),
    "batch_session": (
        "批处理里不能用会话：各行同时处理，没有先后",
        "no conversations in batches: lines are answered at the same time, in no order",
    ),
    "batch_user": (
        "批处理里不能用 user：各行同时处理，没有先后",
        "no user in batches: lines are answered at the same time, in no order",
    ),
    "batch_memory": (
        "批处理里不能用记忆：各行同时处理，没有先后",
        "no memory in batches: lines are answered at the same time, in no order",
    ),
    "line_too_long": ("这一行太长，最多 {most_bytes} 字节", "this line is too long, at most {most_bytes} bytes"),
    "custom_id_form": (
        "custom_id 必须是 1 到 {longest_id} 个字符的字符串",
        "custom_id must be a string of 1 to {longest_id} characters",
    ),
    "custom_id_twice": ("custom_id {id!r} 与第 {first} 行的相同", "custom_id {id!r} is that of line {first} too"),
    "method_form": ("method 只能是 POST", "method must be POST"),
    "unknown_url": ("没有 url {url!r}，可用的有：{known}", "there is no url {url!r}; there are: {known}"),
    "other_url": ("url 必须与批处理的 endpoint 相同：{endpoint}", "url must be the batch's endpoint: {endpoint}"),
    "body_form": ("body 必须是 JSON 对象", "body must be a JSON object"),
    "line_form": ("这一行必须是 JSON 对象", "this line must be a JSON object"),
    "line_lacks": ("缺少 {name}", "{name} is missing"),
    "line_field": ("不支持 {name!r}，一行只有 {fields}", "{name!r} is not supported; a line has {fields}"),
    "the_line": ("这一行", "this line"),
    # http/batch_runner.py
    "file_without_lines": ("文件里没有一行请求", "the file has no line with a request"),
    "line_gave_up": (
        "这一行处理了 {most_tries} 次都没有成功，不再处理",
        "this line was tried {most_tries} times without success and is given up",
    ),
    # http/batches.py
    "unknown_endpoint": (
        "没有 endpoint {endpoint!r}，{asked}可用的有：{known}",
        "there is no endpoint {endpoint!r}; {asked}there are: {known}",
    ),
    "metadata_form": (
        "metadata 最多 {most_pairs} 对，键最多 {longest_key} 个字符，值最多 {longest_value} 个字符",
        (
            "metadata may have {most_pairs} pairs, with keys of {longest_key} and values of {longest_value} "
            "characters at most"
        ),
    ),
    # http/body.py
    "content_encoding": (
        "不支持 Content-Encoding: {name}，请发送未压缩的 JSON",
        "Content-Encoding: {name} is not supported, send JSON that is not compressed",
    ),
    "content_type": ("请求头 Content-Type 必须是 application/json", "the header Content-Type must be application/json"),
    "body_example": (
        '请求体必须是 JSON 对象，例如 {{"text": "今天很开心"}}',
        'the body must be a JSON object, such as {{"text": "今天很开心"}}',
    ),
    "body_missing": ("没有请求体；{form}", "there is no body; {form}"),
    "body_too_large": (
        "请求体太大，最多 {max_content_length} 字节",
        "the body is too large, at most {max_content_length} bytes",
    ),
    "body_cut": ("请求体没有完整送达，请重新发送", "the body did not arrive whole, send it again"),
    "not_utf8": ("{whole}不是有效的 UTF-8 编码，请以 UTF-8 发送", "{whole} is not valid UTF-8, send it as UTF-8"),
    "not_json": (
        "{whole}不是有效的 JSON，请检查引号、逗号和括号",
        "{whole} is not valid JSON, check quotes, commas and brackets",
    ),
    "half_pair": (
        "{place} 含有不成对的 UTF-16 代理字符，请发送有效的 UTF-8 文本",
        "{place} holds half a pair of UTF-16 surrogates, send valid UTF-8",
    ),
    "many_values": ("{whole}中的值太多，最多 {most_values} 个", "{whole} holds too many values, at most {most_values}"),
    "deep": (
        "{whole}的 JSON 嵌套太深，最多 {deepest} 层",
        "{whole} nests its JSON too deeply, at most {deepest} levels",
    ),
    "no_json_number": ("{whole}含有 {name}，它不是有效的 JSON 数值", "{whole} holds {name}, which is no JSON number"),
    "number_too_large": (
        "{whole}含有 {number}，这个数太大，双精度浮点数（约 1.8e308）存不下",
        "{whole} holds {number}, a number beyond what a double holds (about 1.8e308)",
    ),
    "many_keys": (
        "{whole}中有一个对象的键太多，最多 {most_keys} 个",
        "{whole} holds an object with too many keys, at most {most_keys}",
    ),
    "key_twice": ("{whole}中有重复的键，请每个键只写一次", "{whole} holds a key twice, write each once"),
    "the_body": ("请求体", "the body"),
    # http/chat.py
    "session_id_without": (
        "session 为 false 时不能带 session_id，请去掉其中一个",
        "session is false, so session_id cannot be given: leave out one of the two",
    ),
    "memory_whose": ("memory 为 true 时要带 user，请写明是谁", "memory is true, so user is needed: say whose it is"),
    "memory_off_user": (
        "这个服务没有开启记忆（QAIO_MEMORY=1），请去掉 user",
        "this service has no memory (QAIO_MEMORY=1): leave out user",
    ),
    # http/classify.py
    "no_label_task": (
        "任务 {name} 不是标签任务，请选一个有 labels 的任务，见 GET /v1/tasks",
        "the task {name} has no labels: choose one that has, see GET /v1/tasks",
    ),
    "several_inputs": (
        "任务 {name} 有几个输入，请用 POST /v1/tasks/{name}",
        "the task {name} has several inputs: use POST /v1/tasks/{name}",
    ),
    # http/decisions.py
    "bool_or_text": ("必须是 true、false 或非空的字符串", "must be true, false or a string with something in it"),
    "half_pair_in_it": (
        "含有不成对的 UTF-16 代理字符，请发送有效的 UTF-8 文本",
        "holds half a pair of UTF-16 surrogates, send valid UTF-8",
    ),
    "tool_call_item": (
        "第 {number} 项是工具调用（{kind}），这个模型只读文字",
        "item {number} is a tool call ({kind}), and this model reads text only",
    ),
    "twice_in": ("的 {field} 有重复，请每个只写一次", "has a {field} twice, write each once"),
    # http/error_answers.py
    "no_address": (
        "没有这个地址，{asked}接口说明见 /docs",
        "there is nothing at this address, {asked}see /docs for what there is",
    ),
    "no_method": (
        "这个地址不支持该请求方法，支持的有：{methods}",
        "this address does not take that method, it takes: {methods}",
    ),
    "body_large": ("请求体太大", "the body is too large"),
    "must_be_string": ("必须是字符串", "must be a string"),
    "min_characters": ("至少要有 {min_length} 个字符", "must have at least {min_length} characters"),
    "max_characters": ("最多 {max_length} 个字符", "may have at most {max_length} characters"),
    "must_be_bool": ("必须是 true 或 false", "must be true or false"),
    "must_be_integer": ("必须是整数", "must be a whole number"),
    "must_be_number": ("必须是数字", "must be a number"),
    "must_be_list": ("必须是数组", "must be an array"),
    "must_be_object": ("必须是对象", "must be an object"),
    "only": ("只能是 {expected}", "must be {expected}"),
    "only_type": ("的 type 只能是 {expected_tags}", "must have a type that is one of {expected_tags}"),
    "needs_type": ("必须是带有 type 的对象", "must be an object with a type"),
    "min_items": ("至少要有 {min_length} 项", "must have at least {min_length} items"),
    "max_items": ("最多 {max_length} 项", "may have at most {max_length} items"),
    "more_than": ("必须大于 {gt}", "must be more than {gt}"),
    "at_least": ("不能小于 {ge}", "must be at least {ge}"),
    "less_than": ("必须小于 {lt}", "must be less than {lt}"),
    "at_most": ("不能大于 {le}", "must be at most {le}"),
    "field_missing": ("缺少字段 {field}", "the field {field} is missing"),
    "field_must_be": (
        "缺少字段 {field}，它只能是 {only}",
        "the field {field} is missing, and must be {only}",
    ),
    "meant_field": ("是不是想写 {meant}？", "did you mean {meant}?"),
    "see_docs": ("请对照 /docs 检查字段名", "compare the names of fields with /docs"),
    "needs_fields": ("还缺必填字段：{fields}", "required here and missing: {fields}"),
    "only_label_tasks": ("它只用于标签任务", "only label tasks take it"),
    "only_tasks": ("接受它的任务有：{tasks}", "the tasks that take it: {tasks}"),
    "field_unknown": ("不支持字段 {field}，{advice}", "the field {field} is not supported, {advice}"),
    "value_wrong": ("的值不合要求，请对照 /docs 检查", "has a value that is not allowed, see /docs"),
    "of_field": ("{field} {complaint}", "{field} {complaint}"),
    "either": ("{one} 或 {other}", "{one} or {other}"),
    # http/feedback.py
    "which_task": (
        "那个请求里有几个标签任务，请用 task 指明一个：{answers}",
        "that request has several label tasks, name one with task: {answers}",
    ),
    "task_not_asked": (
        "那个请求里没有任务 {task!r}，{asked}有的是：{answers}",
        "that request has no task {task!r}; {asked}it has: {answers}",
    ),
    "ok_or_label": (
        '请给出 "ok": true，或者用 label 给出正确的标签，二者选一',
        'give "ok": true, or the right label as label, one of the two',
    ),
    "there_are_labels": ("可用的标签有：{labels}", "the labels are: {labels}"),
    "answer_no_label": (
        "回答 {label!r} 不是一个标签，请用 label 给出正确的标签，{way}",
        "the answer {label!r} is no label: give the right one as label; {way}",
    ),
    "unknown_label": (
        "任务 {task} 没有标签 {label!r}，{asked}{way}",
        "the task {task} has no label {label!r}; {asked}{way}",
    ),
    # http/files.py
    "uploads_at_once": (
        "这个密钥已有 {at_once} 个文件正在上传，请等其中一个传完再上传",
        "{at_once} files of this key are being uploaded already: wait until one of them is done",
    ),
    "upload_length": ("上传文件必须带请求头 Content-Length", "an upload needs the header Content-Length"),
    "file_too_large": (
        "文件太大，最多 {file_mb} MB，请分成几个文件上传",
        "the file is too large, at most {file_mb} MB: upload it in several files",
    ),
    "file_empty": ("文件是空的，每行应有一个请求", "the file is empty, each line should hold a request"),
    "file_not_utf8": (
        "文件不是有效的 UTF-8 编码（第 {line} 行），请以 UTF-8 保存后上传",
        "the file is not valid UTF-8 (line {line}): save it as UTF-8 and upload it again",
    ),
    # http/idempotency.py
    "once_upload": ("{header} 不能用于上传文件，请去掉它", "{header} cannot be used for uploads, leave it out"),
    "once_form": (
        "请求头 {header} 必须是 1 到 255 个可见的 ASCII 字符",
        "the header {header} must be 1 to 255 visible ASCII characters",
    ),
    "once_stream": (
        "{header} 不能用于流式请求，请去掉它，或不用 stream",
        "{header} cannot be used for streams: leave it out, or do not stream",
    ),
    # http/messages.py
    "an_image": ("图片", "an image"),
    "a_sound": ("音频", "a sound"),
    "a_file": ("文件", "a file"),
    "part_no_text": (
        "第 {number} 段是{unsupported}（{kind}），这个模型只读文字",
        "part {number} is {unsupported} ({kind}), and this model reads text only",
    ),
    "part_form": (
        '第 {number} 段必须正好写作 {{"type": "{kind}", "text": "..."}}',
        'part {number} must be exactly {{"type": "{kind}", "text": "..."}}',
    ),
    # http/openai.py
    "max_tokens_twice": (
        "max_tokens 和 max_completion_tokens 只能给一个",
        "give either max_tokens or max_completion_tokens",
    ),
    "top_logprobs_alone": ("top_logprobs 要与 logprobs: true 一起用", "top_logprobs goes with logprobs: true"),
    "memory_off_asked": (
        "这个服务没有开启记忆（QAIO_MEMORY=1），请去掉 memory",
        "this service has no memory (QAIO_MEMORY=1): leave out memory",
    ),
    # http/prompt_bench.py
    "trial_busy": ("正在试另一个提示词，请等它完成", "another prompt is being tried, wait until that is done"),
    "trial_cases": (
        "任务 {task} 没有标准用例，请先写它的 cases.yaml",
        "the task {task} has no gold cases, write its cases.yaml first",
    ),
    "task_unusable": ("这样的任务不能用：{error}", "such a task cannot be used: {error}"),
    "expects_any": ("含其一：{words}", "any of: {words}"),
    "expects_all": ("都含：{words}", "all of: {words}"),
    "expects_none": ("不含：{words}", "none of: {words}"),
    "expects_short": ("最多 {most} 字", "at most {most} characters"),
    # http/prompts.py
    "prompt_form": (
        "必须是字符串、token 编号的数组，或若干个其中一种",
        "must be a string, an array of token ids, or several of one of these",
    ),
    "prompt_most": (
        "最多 {most} 个，文字和 token 编号不能混用",
        "may hold at most {most}, and either texts or token ids",
    ),
    # http/rate_limits.py
    "requests_a_minute": ("请求太频繁：每分钟最多 {limit} 次", "too many requests: at most {limit} a minute"),
    "tokens_a_minute": (
        "生成的文字太多：每分钟最多 {limit} 个 token",
        "too much text: at most {limit} tokens a minute",
    ),
    # http/reply_fields.py
    "strings": ("必须是字符串或字符串数组", "must be a string or an array of strings"),
    "stop_form": (
        "最多 {most_stops} 个，每个 1 到 {longest_stop} 个字符",
        "may hold at most {most_stops}, each of 1 to {longest_stop} characters",
    ),
    "bias_form": (
        "必须是对象：token 编号到 -100 至 100 的数，最多 {most_biases} 项",
        "must be an object from token ids to numbers from -100 to 100, at most {most_biases} of them",
    ),
    "schema_unusable": ("{place} 不能用：{error}", "{place} cannot be used: {error}"),
    "logprobs_count": (
        "n × max_tokens × (1 + 每处列出的个数) 最多 {most_logprobs}",
        "n × max_tokens × (1 + how many are listed at each place) may be {most_logprobs} at most",
    ),
    "logprobs_many": ("logprobs 太多：{most}，请减小其中一个", "too many logprobs: {most}; make one of these smaller"),
    "stop_cuts_json": (
        "stop 会把 JSON 截断，不能与 response_format 一起用",
        "stop would cut the JSON off and cannot be used with response_format",
    ),
    "stream_options_alone": ("stream_options 只能与 stream: true 一起用", "stream_options goes with stream: true"),
    # http/request_terms.py
    "timeout_form": (
        "请求头 {timeout_header} 必须是正整数，单位毫秒",
        "the header {timeout_header} must be a whole number of milliseconds above 0",
    ),
    "priority_form": ("请求头 {header} 必须是 0 到 9 的整数", "the header {header} must be a whole number from 0 to 9"),
    # http/response_fields.py
    "item_no_message": (
        "第 {number} 项是 {kind}，这里只读 message",
        "item {number} is {kind}, and only message is read here",
    ),
    "top_logprobs_include": (
        "top_logprobs 要与 include: [{logprobs!r}] 一起用",
        "top_logprobs goes with include: [{logprobs!r}]",
    ),
    "response_logprobs_count": (
        "max_output_tokens × (1 + top_logprobs) 最多 {most_logprobs}",
        "max_output_tokens × (1 + top_logprobs) may be {most_logprobs} at most",
    ),
    # http/systemone.py
    "no_empty_name": ("不能有空的名称", "must not have an empty name"),
    # http/text_completions.py
    "echo_logprobs": (
        "echo 不能与 logprobs 一起用：没有 prompt 的对数概率",
        "echo cannot be used with logprobs: the prompt has none",
    ),
    "n_prompts": (
        "n 乘以 prompt 的个数最多 {most_replies}",
        "n times the number of prompts may be {most_replies} at most",
    ),
    # http/tokenize.py
    "prompt_or_messages": ("prompt 和 messages 要给一个，也只能给一个", "give either prompt or messages"),
    "tokens_unknown": ("tokens 里有词表中没有的编号", "tokens holds an id that is not in the vocabulary"),
    # http/tool_fields.py
    "no_tool_choice": (
        "只能是 none 或 auto：本服务从不调用工具，不能要求它调用",
        "must be none or auto: this service never calls tools and cannot be made to",
    ),
    # http/usage.py
    "usage_too_much": (
        "用量太多，一次答不完，请用 from、to 缩短日期范围，或用 key 只看一个密钥",
        "this is too much usage for one answer: ask for fewer days with from and to, or for one key with key",
    ),
    "usage_no_keys": (
        "这里不用密钥，用量只有一份，请去掉 key",
        "no keys are used here and all usage is one: leave out key",
    ),
    "from_after": ("from 不能晚于 {last}", "from must not be later than {last}"),
    "date_form": ("{name} 必须是日期，如 2026-01-31", "{name} must be a date, such as 2026-01-31"),
    # service/completions.py
    "last_is_model": (
        "{param} 的最后一条不能是 assistant：不续写已有的回复，请以 user 结尾",
        "the last of {param} must not be the assistant's: replies are not continued, end with user",
    ),
    "characters": ("{count} 个字符", "{count} characters"),
    "ids_unknown": ("{param} 里有词表中没有的 token 编号", "{param} holds a token id that is not in the vocabulary"),
    "tokens": ("{count} 个 token", "{count} tokens"),
    "bias_unknown": (
        "logit_bias 里有词表中没有的 token 编号",
        "logit_bias holds a token id that is not in the vocabulary",
    ),
    "schema_complex": (
        "schema 太复杂，无法逐字遵守（{problem}），请化简",
        "the schema is too complex to follow to the letter ({problem}), make it simpler",
    ),
    "template_refuses": (
        "模型的对话模板不接受这样的角色或顺序，请调整 {param}",
        "the model's chat template does not take these roles or this order, change {param}",
    ),
    "context_exceeded": (
        "{param} 太长（{size}），上下文最多 {context} 个 token，请缩短",
        "{param} is too long ({size}), the context holds {context} tokens at most, shorten it",
    ),
    # service/input_checks.py
    "input_tokens": (
        "{name} 太长（{count} 个 token），最多 {most} 个 token，请缩短后再试",
        "{name} is too long ({count} tokens), at most {most} tokens, shorten it and try again",
    ),
    "input_characters": (
        "{name} 太长（{count} 个字符），最多 {most} 个 token，请缩短后再试",
        "{name} is too long ({count} characters), at most {most} tokens, shorten it and try again",
    ),
    # service/memories.py
    "memory_secret": (
        "text 像是含有证件号、卡号、电话、密码或密钥，这些不会被记住，请去掉后再试",
        (
            "text seems to hold the number of a document, card or phone, a password or a key; these are not "
            "remembered, take them out and try again"
        ),
    ),
    "user_form": (
        "user 只能由 1 到 128 个字母、数字和 . _ @ : + = - 组成，以字母或数字开头，例如 u-123",
        "user must be 1 to 128 letters, digits and . _ @ : + = -, beginning with a letter or digit, such as u-123",
    ),
    "memory_too_long": (
        "text 太长（{count} 个字符），一条记忆最多 {longest} 个字符",
        "text is too long ({count} characters), a memory has {longest} characters at most",
    ),
    # service/prompt_history.py
    "no_sessions": (
        "这个服务的 chat 提示不是对话形式，不支持会话，请去掉 session 和 session_id",
        "this service's chat prompt is not a conversation and knows no sessions: leave out session and session_id",
    ),
    # service/questions.py
    "question_too_long": (
        "{field} 太长（共 {size} 个字符），最多 {most} 个字符，请缩短",
        "{field} is too long ({size} characters in all), at most {most} characters, shorten it",
    ),
    "questions_too_long": (
        "questions 太长（共 {total} 个字符），最多 {most} 个字符，请分几次提问",
        "questions is too long ({total} characters in all), at most {most} characters, ask in several requests",
    ),
    "question_context": (
        "{param} 加上第 {number} 个问题和它最长的选项超过 {context} 个 token，请缩短",
        "{param} with question {number} and its longest option is more than {context} tokens, shorten it",
    ),
    # service/trial.py
    "trial_context": (
        "提示词加输入和回复最多 {context} 个 token，请缩短提示词",
        "prompt, input and reply may have {context} tokens together, shorten the prompt",
    ),
    # serving/refusals.py
    "uri_too_long": ("请求地址太长，请缩短到 4000 字节以内", "the address is too long, keep it within 4000 bytes"),
    "headers_too_large": (
        "请求头太大或太多，每个最多 8000 字节，最多 50 个",
        "the headers are too large or too many, at most 8000 bytes each and 50 of them",
    ),
    "expectation_failed": ("不支持请求头 Expect 的这个值", "this value of the header Expect is not supported"),
    "transfer_coding": ("不支持这种 Transfer-Encoding", "this Transfer-Encoding is not supported"),
    "proxy_protocol": ("不接受来自这个地址的 PROXY 协议", "the PROXY protocol is not taken from this address"),
    "bad_request": (
        "请求不符合 HTTP 规范，请检查请求行和请求头",
        "this is not HTTP as it should be, check the request line and headers",
    ),
    "header_name": (
        "不接受名为 {hdr} 的请求头：名称只能由字母、数字和连字符组成",
        "no header may be named {hdr}: names are letters, digits and hyphens",
    ),
    # state/sqlite_batch_files.py
    "upload_bytes": (
        "文件有 {size} 字节，一个文件最多 {file_mb} MB，请分成几个文件上传",
        "the file has {size} bytes, a file may have {file_mb} MB: upload it in several files",
    ),
    "upload_lines": (
        "文件有 {lines} 行，一个密钥最多 {owner_lines} 行，请分成几个文件",
        "the file has {lines} lines, a key may have {owner_lines}: upload it in several files",
    ),
    "uploads_full": (
        "这个密钥的文件已占 {kept:.1f} MB，最多 {owner_mb} MB，请删除不再需要的文件（DELETE /v1/files/<id>）",
        (
            "the files of this key would take {kept:.1f} MB, of {owner_mb} MB at most: delete those that are no "
            "longer needed (DELETE /v1/files/<id>)"
        ),
    ),
    # state/sqlite_batches.py
    "batch_line_cancelled": ("批处理已取消，这一行没有执行", "the batch was cancelled and this line was not asked"),
    "batch_line_expired": (
        "批处理在时限内没有做完，这一行没有执行",
        "the batch was not done in time and this line was not asked",
    ),
    "batch_line_full": (
        "这个密钥的文件和答案已占满 {owner_mb} MB，这一行没有执行；请删除不需要的文件（DELETE /v1/files/<id>）再提交",
        (
            "the files and answers of this key take all of its {owner_mb} MB and this line was not asked: delete files "
            "that are no longer needed (DELETE /v1/files/<id>) and send it again"
        ),
    ),
    "batch_input": (
        "input_file_id 必须是上传的文件（purpose: batch）",
        "input_file_id must be an uploaded file (purpose: batch)",
    ),
    "batches_open": (
        "这个密钥已有 {count} 个批处理没有做完，最多 {owner_open} 个，请等其中一个做完或取消它",
        "this key has {count} batches that are not done, of {owner_open} at most: wait until one is done, or cancel it",
    ),
    "batches_lines": (
        "这个密钥的批处理里还有 {waiting} 行没有做完，加上这 {lines} 行超过 {owner_lines} 行，请等它们做完",
        (
            "this key's batches have {waiting} lines that are not done; with these {lines} it would be more than "
            "{owner_lines}: wait until they are"
        ),
    ),
    # desk/: what is wrong with a row of a file; it stands in the report too, which is Chinese
    "cell_too_long": ("单元格太长，或引号没有配对", "a cell is too long, or a quotation mark is never closed"),
    "quotes_open": (
        "引号没有配对，其后的内容无法分列",
        "a quotation mark is never closed; what follows has no columns",
    ),
    "row_width": ("有 {count} 列，应为 {width} 列{over}", "{count} columns where there should be {width}{over}"),
    "cells_over": ("，多出：{cells}", ", too many: {cells}"),
    "draft_dropped": (
        "拟的回复不断重复或没有写完，没有采用",
        "the drafted reply repeated itself or was cut off, and was dropped",
    ),
    "line_endless": ("这一行太长", "the line is too long"),
    "line_no_utf8": ("不是 UTF-8 编码", "is not UTF-8"),
    "line_no_json": ("不是合法的 JSON", "is no JSON"),
    "line_no_object": ("不是 JSON 对象", "is no JSON object"),
    "answer_wrong": ("答案不是这个任务的", "the answer is not one of this task"),
}
