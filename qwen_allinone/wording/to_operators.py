"""What operators are told at the command line: by name, in Chinese and in English. In braces is what is filled in."""

from __future__ import annotations

TO_OPERATORS: dict[str, tuple[str, str]] = {
    # everywhere
    "meant": ("，也许是 {name}", ", did you mean {name}?"),
    "further": ("{first}；{others}", "{first}; {others}"),
    "no_such_setting": (
        "{name}：没有这个设置{meant}（有的是：{known}）",
        "{name}: no such setting{meant} (known: {known})",
    ),
    # settings.py, setting_types.py
    "of_value": ("{name}={value}：{error}", "{name}={value}: {error}"),
    "kv_tokens_below_context": (
        "QAIO_KV_TOKENS={kv_tokens} 小于 QAIO_CONTEXT={context}：一个最长的请求放不下；请调大前者或调小后者",
        (
            "QAIO_KV_TOKENS={kv_tokens} is less than QAIO_CONTEXT={context}: "
            "one longest request would not fit; raise the first or lower the second"
        ),
    ),
    "step_tokens_below_slots": (
        (
            "QAIO_STEP_TOKENS={step_tokens} 小于 QAIO_SLOTS={slots}：一步里不是每个进行中的回复都有一个 token；"
            "请调大前者或调小后者"
        ),
        (
            "QAIO_STEP_TOKENS={step_tokens} is less than QAIO_SLOTS={slots}: "
            "not every running reply would get a token in a step; raise the first or lower the second"
        ),
    ),
    "prompt_edit_without_admins": (
        "要密钥的地方，QAIO_PROMPT_EDIT=1 需要 QAIO_ADMINS：别人都不可以改",
        "QAIO_PROMPT_EDIT=1 needs QAIO_ADMINS where keys are asked for: nobody else may edit",
    ),
    "completions_without_memory": (
        "QAIO_MEMORY_CHAT_COMPLETIONS=1 需要 QAIO_MEMORY=1：请两个都设，或都不设",
        "QAIO_MEMORY_CHAT_COMPLETIONS=1 needs QAIO_MEMORY=1: set both or neither",
    ),
    "jwt_settings_missing": (
        "JSON Web Token 要么设置全部 QAIO_JWT_*，要么都不设：没有设置 {absent}",
        "JSON web tokens need all of QAIO_JWT_*, or none: {absent} not set",
    ),
    "network_of_everybody": (
        "包括所有人的网段不是代理：请写代理自己的地址",
        "a network of everybody is not a proxy: name the proxies' own addresses",
    ),
    "no_network": (
        "{value!r} 不是 IPv4 或 IPv6 的地址或网段：请写成 10.0.0.7 或 10.0.0.0/8",
        "{value!r} is no address or network of IPv4 or IPv6: write it as 10.0.0.7 or 10.0.0.0/8",
    ),
    "network_host_bits": (
        "{value!r} 是网段里的一个地址，不是网段：请写成 {network}",
        "{value!r} has host bits set: write {network}",
    ),
    "host_form": (
        "必须是地址或名字，不带端口：0.0.0.0、:: 或 127.0.0.1",
        "must be an address or a name, without a port: 0.0.0.0, :: or 127.0.0.1",
    ),
    "encode_password": (
        "请给密码做百分号编码：/ 写 %2F，? 写 %3F，# 写 %23，@ 写 %40",
        "percent-encode the password: / is %2F, ? is %3F, # is %23, @ is %40",
    ),
    "redis_url_form": (
        "必须写成 redis://host:6379/0、rediss://... 或 unix:///path（Valkey 也一样）",
        "must look like redis://host:6379/0, rediss://... or unix:///path (Valkey too)",
    ),
    "postgres_url_form": (
        "必须写成 postgresql://user:password@host:5432/database",
        "must look like postgresql://user:password@host:5432/database",
    ),
    "host_name_form": (
        "{value!r} 必须是主机名，不带协议和端口：qaio 或 .example.com",
        "{value!r} must be a host's name, without scheme and port: qaio or .example.com",
    ),
    "origin_form": (
        "{value!r} 必须写成 https://app.example.com 或 http://localhost:3000，不带路径",
        "{value!r} must look like https://app.example.com or http://localhost:3000, with no path",
    ),
    "shares_form": (
        "必须写成 alice=3, bob=2，每个名字一次",
        "must look like alice=3, bob=2, each name once",
    ),
    # what pydantic says of a value, by its own names and word for word in English
    "pydantic_missing": ("缺少这一项", "Field required"),
    "pydantic_extra_forbidden": ("没有这一项", "Extra inputs are not permitted"),
    "pydantic_string_type": ("应为文字", "Input should be a valid string"),
    "pydantic_string_too_short": (
        "至少要 {min_length} 个字符",
        "String should have at least {min_length} character(s)",
    ),
    "pydantic_string_too_long": ("最多 {max_length} 个字符", "String should have at most {max_length} character(s)"),
    "pydantic_string_pattern_mismatch": ("应符合 {pattern}", "String should match pattern '{pattern}'"),
    "pydantic_bool_type": ("应为 true 或 false", "Input should be a valid boolean"),
    "pydantic_bool_parsing": ("应为 1 或 0", "Input should be a valid boolean, unable to interpret input"),
    "pydantic_int_type": ("应为整数", "Input should be a valid integer"),
    "pydantic_int_parsing": (
        "应为整数",
        "Input should be a valid integer, unable to parse string as an integer",
    ),
    "pydantic_int_from_float": (
        "应为整数，没有小数部分",
        "Input should be a valid integer, got a number with a fractional part",
    ),
    "pydantic_float_type": ("应为数", "Input should be a valid number"),
    "pydantic_float_parsing": ("应为数", "Input should be a valid number, unable to parse string as a number"),
    "pydantic_finite_number": ("应为有限的数", "Input should be a finite number"),
    "pydantic_greater_than": ("应大于 {gt}", "Input should be greater than {gt}"),
    "pydantic_greater_than_equal": ("应不小于 {ge}", "Input should be greater than or equal to {ge}"),
    "pydantic_less_than": ("应小于 {lt}", "Input should be less than {lt}"),
    "pydantic_less_than_equal": ("应不大于 {le}", "Input should be less than or equal to {le}"),
    "pydantic_literal_error": ("应为 {expected}", "Input should be {expected}"),
    "pydantic_enum": ("应为 {expected}", "Input should be {expected}"),
    "pydantic_dict_type": ("应由键和值组成", "Input should be a valid dictionary"),
    "pydantic_list_type": ("应为列表", "Input should be a valid list"),
    "pydantic_tuple_type": ("应为列表", "Input should be a valid tuple"),
    "pydantic_model_type": (
        "应由键和值组成",
        "Input should be a valid dictionary or instance of {class_name}",
    ),
    "pydantic_too_short": (
        "至少要 {min_length} 项，现在是 {actual_length} 项",
        "{field_type} should have at least {min_length} item(s) after validation, not {actual_length}",
    ),
    "pydantic_too_long": (
        "最多 {max_length} 项，现在是 {actual_length} 项",
        "{field_type} should have at most {max_length} item(s) after validation, not {actual_length}",
    ),
    "one_or_other": ("{one} 或 {other}", "{one} or {other}"),
    # what the system says of a file or an address, by its own names and word for word in English
    "system_EPERM": ("不允许", "Operation not permitted"),
    "system_ENOENT": ("没有这个文件或文件夹", "No such file or directory"),
    "system_EIO": ("读写出错", "Input/output error"),
    "system_EACCES": ("没有权限", "Permission denied"),
    "system_EBUSY": ("正被占用", "Device or resource busy"),
    "system_EEXIST": ("已经有了", "File exists"),
    "system_ENOTDIR": ("不是文件夹", "Not a directory"),
    "system_EISDIR": ("是文件夹", "Is a directory"),
    "system_EMFILE": ("打开的文件太多", "Too many open files"),
    "system_EFBIG": ("文件太大", "File too large"),
    "system_ENOSPC": ("磁盘已满", "No space left on device"),
    "system_EROFS": ("文件系统只能读", "Read-only file system"),
    "system_ENAMETOOLONG": ("名字太长", "File name too long"),
    "system_ELOOP": ("符号链接太多", "Too many levels of symbolic links"),
    "system_EDQUOT": ("配额已用完", "Disk quota exceeded"),
    "system_EADDRNOTAVAIL": ("这台机器没有这个地址", "Cannot assign requested address"),
    # cli/labelled_rows.py: which columns
    "columns_of_name": ("{file} 有 {count} 个列叫 {name!r}", "{file} has {count} columns {name!r}"),
    "no_column_of_name": ("{file} 没有列 {name!r}{meant}", "{file} has no column {name!r}{meant}"),
    "nothing": ("无", "nothing"),
    "name_columns": (
        "{problem}；它有：{there}。请用 --text-column 和 --label-column 指明",
        "{problem}; it has: {there}. Name yours with --text-column and --label-column",
    ),
    "cannot_start": ("qwen-allinone 无法启动：{error}", "qwen-allinone cannot start: {error}"),
    # errors.py
    "task_file": ("{file}：{key}：{problem}。改法：{fix}", "{file}: {key}: {problem}. Fix: {fix}"),
    "checkpoint": ("{problem}。{ways_out}", "{problem}. {ways_out}"),
    "ways_out": (
        (
            "三条出路：(1) 在能上网的机器上先下载模型，再用那份缓存启动（HF_HOME=/path/to/cache "
            "HF_HUB_OFFLINE=1）；(2) 把 QAIO_MODEL 指向带有 config.json、tokenizer.json 和 *.safetensors "
            "的本地文件夹；(3) 用 QAIO_MODEL=demo 在自带的模型上试用。"
        ),
        (
            "Three ways out: (1) on a machine with network, download the model once and start with that cache "
            "(HF_HOME=/path/to/cache HF_HUB_OFFLINE=1); (2) point QAIO_MODEL at a local folder with config.json, "
            "tokenizer.json and *.safetensors; (3) try the service on the embedded model with QAIO_MODEL=demo."
        ),
    ),
    "line_of_alerts": (
        "{file} 第 {line} 行：{key}：{problem}。改法：{fix}",
        "{file}, line {line}: {key}: {problem}. Fix: {fix}",
    ),
    "file_unreadable": ("无法读取 {file}（{error}）", "{file} cannot be read ({error})"),
    "is_unreadable": ("无法读取（{error}）", "cannot be read ({error})"),
    # access/credentials.py
    "of_setting": ("{setting}：{error}", "{setting}: {error}"),
    # access/json_web_tokens.py
    "private_key": (
        "里是私钥；校验要用公钥，私钥不能放在这里",
        "holds a private key; verifying takes the public one, and the other must not lie here",
    ),
    "rsa_key_short": (
        "里的 RSA 密钥只有 {key_size} 位，至少要 {least_rsa_bits} 位",
        "holds an RSA key of {key_size} bits; at least {least_rsa_bits} are needed",
    ),
    "token_secret_short": (
        "里的密钥只有 {count} 字节，HS256 至少要 {least_secret} 字节",
        "holds a secret of {count} bytes; HS256 needs {least_secret} at least",
    ),
    "no_public_key": (
        "里没有 {algorithm} 用的公钥（PEM）（{name}）",
        "holds no public key (PEM) for {algorithm} ({name})",
    ),
    "key_instead_of_secret": (
        "里是 PEM 或 SSH 密钥；HS256 要用随机的密钥",
        "holds a PEM or SSH key; HS256 needs a random secret",
    ),
    # access/keys.py
    "keys_file_empty": (
        "是空的；请用 `qwen-allinone keys new NAME` 生成密钥",
        "is empty; make a key with `qwen-allinone keys new NAME`",
    ),
    "key_name_form": (
        "{name!r} 不能作密钥的名称：最多 64 个 A-Z a-z 0-9 . _ -，以字母或数字开头",
        "{name!r} is no name for a key: up to 64 of A-Z a-z 0-9 . _ -, a letter or digit first",
    ),
    "not_utf8_text": ("不是 UTF-8 文本", "is not UTF-8 text"),
    "key_line_form": (
        (
            "第 {number} 行：不是 `NAME: sha256:` 加 64 个十六进制数字。这个文件保存密钥的散列，不保存密钥："
            "请删除这一行；`qwen-allinone keys new NAME` 生成一个密钥，只显示一次，并把它的散列写进来"
        ),
        (
            "line {number}: is not `NAME: sha256:` and 64 hex digits. The file holds hashes of keys, never keys: "
            "remove the line; `qwen-allinone keys new NAME` makes a key, shows it once and writes its hash here"
        ),
    ),
    "key_line_twice": ("第 {number} 行：{match} 出现了两次", "line {number}: {match} is there twice"),
    "key_there_already": (
        "{name} 已有密钥；请先删除它，或换一个名称",
        "{name} has a key already; remove it first, or take another name",
    ),
    "no_key_of_name": ("{name} 没有密钥", "{name} has no key"),
    "access_file_unreadable": ("{path}：无法读取：{strerror}", "{path}: cannot be read: {strerror}"),
    "of_file": ("{path}：{error}", "{path}: {error}"),
    "access_file_not_utf8": ("{path}：不是 UTF-8 文本", "{path}: is not UTF-8 text"),
    "access_file_unwritable": ("{path}：无法写入：{strerror}", "{path}: cannot be written: {strerror}"),
    # cli/commands.py
    "model_is_here": (
        "{name} 已经在这台机器上：请写 hub 上的模型，如 Qwen/Qwen1.5-0.5B",
        "{name} is on this machine already: name a model on the hub, as Qwen/Qwen1.5-0.5B",
    ),
    "too_little_room": (
        "那里只有 {free} 空间：请腾出地方，或用 --to 换一个文件夹",
        "only {free} are free there: make room, or name another folder with --to",
    ),
    # cli/correction_commands.py
    "feedback_file_not_set": (
        "没有设置 QAIO_FEEDBACK_FILE：请写明服务把更正保存在哪个文件",
        "QAIO_FEEDBACK_FILE is not set: name the file in which the service keeps feedback",
    ),
    "no_feedback_file": (
        "{feedback_file} 不存在：还没有人更正过",
        "{feedback_file} is not there: nobody has given feedback yet",
    ),
    "no_feedback_on_task": (
        "最近 {feedback_days:g} 天没有人更正过 {task}",
        "nobody has given feedback on {task} in the last {feedback_days:g} days",
    ),
    # cli/feedback_command.py
    "name_a_file": (
        "请给出一个或几个文件，或用自带的例子：--sample",
        "name one file or more, or take the one that comes with the package: --sample",
    ),
    "without_form": (
        "--without {unknown}：只能是 {optional} 之一",
        "--without {unknown}: it can be one of {optional}",
    ),
    "no_row_below_header": ("表头下面没有一行", "there is no row below the header"),
    "out_folder_not_made": (
        "无法建立 {folder}（{strerror}）；请用 --out 换一个",
        "{folder} cannot be made ({strerror}); name another with --out",
    ),
    # cli/key_commands.py
    "keys_file_not_set": (
        "没有设置 QAIO_API_KEYS_FILE：请写明保存密钥散列的文件",
        "QAIO_API_KEYS_FILE is not set: name the file that holds the hashes of the keys",
    ),
    # cli/labelled_commands.py
    "not_a_label_task": (
        "{name} 不是标签任务：没有标签可比",
        "{name} is no label task: there is nothing to compare with labels",
    ),
    "map_without_labels": ("--map {names}：{name} 没有标签可翻译", "--map {names}: {name} has no labels to translate"),
    "map_form": (
        "--map {names}：请写成 1={labels},0={labels2}",
        "--map {names}: write it as 1={labels},0={labels2}",
    ),
    "no_row_answered": ("没有一行得到回答", "no row was answered"),
    "prompts_read_only": (
        "{folder} 不可写：请让它可写，或用 QAIO_PROMPTS 在副本上做",
        "{folder} cannot be written: make it writable, or work on a copy with QAIO_PROMPTS",
    ),
    # cli/labelled_rows.py
    "line_not_utf8_maybe_gbk": (
        "{file} 不是 UTF-8（第 {line} 行）；请存成 UTF-8，它可能是 GBK：{value}",
        "{file} is not UTF-8 (line {line}); save it as UTF-8, it may be GBK: {value}",
    ),
    "below_its_header": ("：表头下面没有行", " below its header"),
    "maybe_big5": ("；它可能是 Big5：{command}", ", it may be Big5: {command}"),
    "name_another": ("请用 {option} 指明另一个", "name another with {option}"),
    "put_this_there": (
        "请让文件夹可写，或自己写入这些：\n{text}",
        "make the folder writable, or put this there yourself:\n{text}",
    ),
    "no_usable_row": ("{file} 没有一行能用{why}", "{file} has no row that can be used{why}"),
    "is_utf_16": (
        "{file} 是 UTF-16；请存成 UTF-8，例如用：{value}",
        "{file} is UTF-16; save it as UTF-8, e.g. with: {value}",
    ),
    "line_of_file": ("{file}：第 {number} 行：{header}", "{file}: line {number}: {header}"),
    "line_not_utf8": (
        "{file} 不是 UTF-8（第 {line} 行）；请存成 UTF-8{hint}",
        "{file} is not UTF-8 (line {line}); save it as UTF-8{hint}",
    ),
    "some_lines_not_utf8": (
        "{file}：第 {line} 行不是 UTF-8，而第 {other_line} 行是；请全部存成 UTF-8",
        "{file}: line {line} is not UTF-8, but line {other_line} is; save all of it as UTF-8",
    ),
    # cli/prompt_commands.py
    "no_versions_kept": (
        "{root} 里没有保留任何版本：服务把它们放在 QAIO_PROMPTS_KEPT，请与服务一样设置它，或在服务的文件夹里运行",
        (
            "no version is kept in {root}: the service keeps them in QAIO_PROMPTS_KEPT; set it as the service has it, "
            "or run this in the service's folder"
        ),
    ),
    "no_such_version": (
        "{root} 里没有版本 {version}：有的见 qwen-allinone prompts list",
        "no version {version} is kept in {root}: qwen-allinone prompts list names those that are",
    ),
    "no_earlier_prompts": ("{root} 里没有更早的版本", "no earlier version is kept in {root}"),
    "not_reloaded": (
        "没有换上新的；`--force` 可以强行换上",
        "not reloaded; `--force` takes it all the same",
    ),
    "prompts_unreadable": (
        "{filename}：{strerror}：请看 QAIO_PROMPTS 和 QAIO_PROMPTS_KEPT",
        "{filename}: {strerror}: see QAIO_PROMPTS and QAIO_PROMPTS_KEPT",
    ),
    # files.py
    "no_folder": ("没有文件夹 {folder}，请先建立：{command}", "there is no folder {folder}; make it: {command}"),
    # cli/result_files.py
    "wrong_is_another": (
        "{file} 已经有了，而它不是 eval 写的，不会覆盖；请用 --wrong 指明另一个文件",
        "{file} is there and was not written by eval, so it is left as it is; name another file with --wrong",
    ),
    "result_unwritable": (
        "无法写入 {file}（{strerror}）；{fix}",
        "{file} cannot be written ({strerror}); {fix}",
    ),
    # cli/temperature.py
    "too_few_for_temperature": (
        "回答了的 {count} 行太少，不够拟合温度；请给 {fewest_rows} 行以上",
        "{count} answered rows are too few to fit a temperature to; give {fewest_rows} or more",
    ),
    # cli/terminal.py
    "share_form": (
        "{option} {value}：请写 0 到 1 之间的比例，如 0.8",
        "{option} {value}: write a share from 0 to 1, as 0.8",
    ),
    "no_key_in_file": (
        "{file} 里没有密钥或令牌：必须是一行字母、数字和符号",
        "{file} holds no key or token: it must be one line of letters, digits and signs",
    ),
    # cli/tune_command.py
    "no_better_epoch": (
        "没有一轮比原来的模型好：什么也没写",
        "no epoch was better than the model as it is: nothing was written",
    ),
    "ended_unmeasured": (
        "还没测量就结束了：什么也没写",
        "ended before anything was measured: nothing was written",
    ),
    "kind_not_teachable": (
        "{name} 的回答是 {kind}：只能教标签和文字",
        "{name} answers with a {kind}: only labels and texts can be taught",
    ),
    "adapter_there_already": (
        "{folder} 已有适配器：--replace 覆盖它，--out 把新的放到别处",
        "{folder} has an adapter already: --replace writes over it, --out puts the new one elsewhere",
    ),
    "adapter_unwritable": (
        "{folder} 不可写：请让它可写，或用 --out 换一个",
        "{folder} cannot be written: make it writable, or name another with --out",
    ),
    "too_few_to_learn_from": (
        "{data} 除留出的 {count2} 行外只有 {count} 行可学：太少",
        "{data} has {count} rows to learn from beside {count2} held out: too few",
    ),
    "nothing_to_learn": ("没有一行能学或能测", "no row can be learnt from or measured on"),
    # cli/tune_prompt_command.py
    "prompt_form_fixed": (
        "{name}：只有一问一答的对话提示词能换写法",
        "{name}: only a chat prompt of questions and answers can be written in other ways",
    ),
    "prompt_has_adapter": (
        "{name} 有适配器，它是按原来的提示词教的：请去掉其中一个",
        "{name} has an adapter, which was taught the prompt as it is: remove one of the two",
    ),
    "nothing_to_ask": ("没有一行能问", "no row can be asked"),
    "too_few_rows": (
        "{data} 有 {count} 行能用，至少要 {fewest} 行",
        "{data} has {count} rows that can be used, and {fewest} at least are needed",
    ),
    "instruction_form": (
        "--instruction：文字里不能有以 system:、user:、assistant: 或与之相近的词开头的行",
        "--instruction: write a text of which no line begins with system:, user:, assistant: or a word like these",
    ),
    "prompt_unwritable": (
        "无法写入 {file}（{strerror}）；请让文件夹可写",
        "{file} cannot be written ({strerror}); make the folder writable",
    ),
    # desk/asking.py
    "given_up": ("放弃了", "given up"),
    "url_refuses": (
        "--url 的服务拒绝（{status}）：{told}",
        "the service at --url refuses ({status}): {told}",
    ),
    "sentiment_needed": (
        "需要任务 {sentiment!r}，带标签 {positive} 和 {negative}",
        "the task {sentiment!r} with the labels {positive} and {negative} is needed",
    ),
    "url_silent": (
        "--url 的服务没有应答（{name}：{error}）",
        "the service at --url does not answer ({name}: {error})",
    ),
    "url_is_no_service": (
        "--url 那里不是这样的服务：它不列出任务",
        "what answers at --url is no such service: it does not tell its tasks",
    ),
    "model_silent": ("模型没有回答（{value}）", "the model does not answer ({value})"),
    # desk/journal.py
    "journal_unwritable": (
        "无法写入 {path}（{strerror}）。已完成并保存 {done} 行：请修好，再用 --resume 继续",
        "{path} cannot be written ({strerror}). {done} rows are done and kept: mend it and go on with --resume",
    ),
    "run_there_already": (
        "{parent} 里已有一次运行，完成了 {done} 行：请用 --resume 继续，或用 --out 换一个文件夹",
        "{parent} holds a run already, {done} rows are done: go on with --resume, or name another folder with --out",
    ),
    "other_run_there": (
        "{parent} 里那次运行的 {changed} 不同：请用 --out 换一个文件夹",
        "{parent} holds a run with other {changed}: name another folder with --out",
    ),
    "run_at_work": (
        "{parent}：另一次运行正在用它，请等它结束",
        "{parent}: another run is at work there; wait for it",
    ),
    # desk/outputs.py
    "results_unwritable": (
        "无法写入 {folder}（{strerror}）。{done} 个回答都在 {name} 里：请腾出地方，再用 --resume 继续",
        (
            "{folder} cannot be written ({strerror}). All {done} answers are kept in {name}: make room and go on "
            "with --resume"
        ),
    ),
    "labelled_file_changed": (
        "有文件在打标签之后变了：请用 --out 换一个文件夹",
        "a file has changed since it was labelled: name another folder with --out",
    ),
    # desk/sources.py
    "file_kind_unknown": ("{path}：请按它的格式命名：{kinds}", "{path}: name it as what it is: {kinds}"),
    "file_without_rows": ("{path} 是空的：没有一行", "{path} is empty: there is no row in it"),
    "too_many_columns": (
        "{path} 有 {count} 列，最多 {most_columns} 列：它真是这种文件吗？",
        "{path} has {count} columns, {most_columns} at most: is it what it says?",
    ),
    "csv_invalid": (
        "{path}：第 {line} 行：不是合法的 CSV（{header}）",
        "{path}: line {line}: no valid CSV ({header})",
    ),
    "two_encodings": ("，而第 {line} 行是：一个文件里有两种编码", ", but line {line} is: two encodings in one file"),
    "likely_big5": ("，可能是 Big5", ", it may be Big5"),
    "encoding_unknown": ("，也不是别的已知编码", ", and no other encoding that is known"),
    "install_or_csv": (
        "pip install -r requirements-feedback.txt，或把文件存成 CSV",
        "pip install -r requirements-feedback.txt, or save the file as CSV",
    ),
    "source_line_not_utf8": (
        "{path}：第 {line} 行不是 UTF-8{why}；请全部存成 UTF-8",
        "{path}: line {line} is not UTF-8{why}; save all of it as UTF-8",
    ),
    "excel_needs_openpyxl": ("{path}：读 Excel 需要 openpyxl：{extra}", "{path}: Excel needs openpyxl: {extra}"),
    "parquet_needs_pyarrow": ("{path}：读 Parquet 需要 pyarrow：{extra}", "{path}: Parquet needs pyarrow: {extra}"),
    "parquet_invalid": (
        "{path} 不是能读的 Parquet 文件（{error}）",
        "{path} is no Parquet file that can be read ({error})",
    ),
    "excel_invalid": (
        "{path} 不是能读的 Excel 文件（{name}：{error}）",
        "{path} is no Excel file that can be read ({name}: {error})",
    ),
    # desk/table.py
    "column_not_in_all": (
        "{path} 没有 {path2} 里的列 {text!r}；它有：{columns}。请用 --text 指明另一列，或单独处理这个文件",
        (
            "{path} has no column {text!r} as {path2} has; it has: {columns}. Name another with --text, or label "
            "this file by itself"
        ),
    ),
    "no_text_column": (
        "{path} 的列里像是只有数字和日期，没有文字：{columns}。请用 --text 指明人们所说的话在哪一列",
        (
            "the columns of {path} seem to hold numbers and dates alone, and no text: {columns}. Name the one "
            "with what people say with --text"
        ),
    ),
    "no_such_column": (
        "没有列 {name!r}{name2}；有的是：{there}。请用 {flag} 指明",
        "no column {name!r}{name2}; there are: {there}. Name yours with {flag}",
    ),
    # engine/tuning.py
    "needs_more": ("{needs}（{error}）", "{needs} ({error})"),
    "out_folder_unwritable": (
        "无法写入 {folder}（{strerror}）：请用 --out 换一个",
        "{folder} cannot be written ({strerror}): name another with --out",
    ),
    # model/checkpoint.py
    "tokenizer_without_end": (
        "{folder} 里的分词器既没有 <|endoftext|> 也没有 <|im_end|>",
        "the tokenizer in {folder} has neither <|endoftext|> nor <|im_end|>",
    ),
    "tokenizer_beyond_model": (
        "{folder} 里的分词器有模型没有的 token（它只有 {vocabulary} 个）：请用训练它时的分词器，或先扩大词嵌入",
        "the tokenizer in {folder} has tokens that the model has not (it has {vocabulary}): take the tokenizer that it "
        "was trained with, or resize its embeddings first",
    ),
    "no_model_folder": ("模型文件夹 {folder} 不存在", "the model folder {folder} does not exist"),
    # model/config.py
    "no_architecture": ("没有 architectures", "no architecture"),
    "no_object": ("不是对象", "no object"),
    "qwen3_bias": ("不支持 Qwen3 的 attention_bias", "attention_bias is not supported for Qwen3"),
    "rope_unknown": (
        "不支持 rope 类型 {kind!r}：请用没有它的检查点",
        "rope type {kind!r} is not supported; use the checkpoint without it",
    ),
    "sliding_window": (
        "不支持滑动窗口注意力：请把 use_sliding_window 设为 false",
        "sliding-window attention is not supported; set use_sliding_window to false",
    ),
    "activation_unknown": ("不支持激活函数 {name!r}", "activation {name!r} is not supported"),
    "weights_quantized": (
        "不支持量化的权重：请用量化以前的检查点",
        "quantized weights are not supported; use the checkpoint they were made from",
    ),
    "heads_not_multiple": (
        "num_attention_heads 不是 num_key_value_heads 的倍数",
        "num_attention_heads is not a multiple of num_key_value_heads",
    ),
    "head_dim_odd": (
        "head_dim {head_dim} 不是偶数，旋转位置编码做不到",
        "head_dim {head_dim} is not even, which rotary embeddings need",
    ),
    "model_kind_unknown": (
        "{file} 写的是 {value}；本服务能运行 {qwen2} 和 {qwen3}",
        "{file} describes {value}; this service runs {qwen2} and {qwen3}",
    ),
    "no_config_json": (
        "{folder} 里没有 config.json，不是模型文件夹",
        "{folder} holds no config.json, so it is no model folder",
    ),
    "of_key": ("{file}：{key}：{first}", "{file}: {key}: {first}"),
    "config_unclear": ("看不懂 {file}（{error}）", "{file} cannot be understood ({error})"),
    # model/hub.py
    "model_name_form": (
        "{name!r} 既不是文件夹，也不是合法的 hub 名称",
        "{name!r} is neither a folder nor a valid hub id",
    ),
    "download_differs": (
        "{path} 与 hub 上的不同，已删除：请再运行同样的命令",
        "{path} was not what the hub has and was removed: run the same command again",
    ),
    "hub_refuses": (
        "hub 不提供 {name!r} 的版本 {revision!r}（{error}）",
        "the hub does not give {name!r} at revision {revision!r} ({error})",
    ),
    "offline_and_not_cached": (
        "设置了 HF_HUB_OFFLINE，而 {name} 不在（或不全在）hub 的缓存里",
        "HF_HUB_OFFLINE is set and {name} is not (or only partly) in the hub's cache",
    ),
    "not_in_cache": ("{name} 不在它的缓存里（或不全）", "{name} is not (or only partly) in its cache"),
    "silent": ("{seconds} 秒内没有回应", "no answer within {seconds} s"),
    "hub_out_of_reach": ("连不上 hub，而且 {missing}（{error}）", "the hub is out of reach and {missing} ({error})"),
    "downloading_failed": ("下载 {name} 失败（{name2}：{error}）", "downloading {name} failed ({name2}: {error})"),
    # model/lora.py
    "changed_since_start": ("在启动之后变了", "has changed since the start"),
    "start_or_reload": ("请重新启动或重新加载服务", "start or reload the service again"),
    "tune_on_this_one": ("请在这个模型上教它，或删除它", "tune it on this one, or remove it"),
    "copy_again": ("请重新复制", "copy it again"),
    "holds_kind": ("里是 {dtype}", "holds {dtype}"),
    "save_adapter_as_floats": ("请把适配器存成浮点数", "save the adapter as floats"),
    "not_finite": ("里有不是有限数的值", "holds numbers that are not finite"),
    "train_adapter_anew": ("请重新训练适配器", "train the adapter anew"),
    "take_fitting_adapter": ("请用这个模型的适配器", "take an adapter of this model"),
    "take_adapter_and_config": (
        "请用这个模型的适配器，和它自己的配置",
        "take an adapter of this model, and its own config",
    ),
    # model/tokenizer.py
    "no_chat_template": (
        "这个模型没有对话模板，而对话任务需要它",
        "the checkpoint has no chat template, which chat tasks need",
    ),
    "chat_template_unreadable": (
        "无法读取模型的对话模板（{error}）",
        "the checkpoint's chat template cannot be read ({error})",
    ),
    "chat_template_fails": (
        "无法套用模型的对话模板（{error}）",
        "the checkpoint's chat template cannot be rendered ({error})",
    ),
    # model/weights.py
    "no_weights": ("{folder} 里没有 {single}", "{folder} holds no {single}"),
    "weights_are_pickle": (
        "{pickled} 是 pickle，它能运行代码；这里只读 safetensors 文件",
        "{pickled} is a pickle, which can run code; only safetensors files are loaded",
    ),
    "index_names_other_files": (
        "{index} 写的不是它旁边的 safetensors 文件",
        "{index} names something that is no safetensors file beside it",
    ),
    "tensor_missing": ("权重里缺少张量 {name}", "the weights lack the tensor {name}"),
    "tensor_quantized": (
        "张量 {name} 的类型是 {kind}；不支持量化的权重",
        "the tensor {name} holds {kind}; quantized weights are not supported",
    ),
    "tensor_shape": (
        "张量 {name} 的形状是 {found}，而 config.json 要求 {shape}",
        "the tensor {name} has the shape {found}, but config.json calls for {shape}",
    ),
    "weights_damaged": (
        "{file} 被截断、损坏或缺失（{error}）",
        "{file} is truncated, damaged or missing ({error})",
    ),
    # patience.py
    "url_form": ("--url：请写成 http://HOST:PORT", "--url: write it as http://HOST:PORT"),
    # service/codec.py
    "shorten_or_raise": (
        "请缩短它，或调大 QAIO_CONTEXT：从 {enough} 起所有任务都放得下",
        "shorten it, or raise QAIO_CONTEXT: from {enough} on all tasks fit",
    ),
    # service/fitted_task.py
    "choose_other_label_names": ("请换别的标签名", "choose other label names"),
    # tasks/adapter_files.py
    "is_pickle": ("是 pickle，它能运行代码", "is a pickle, which can run code"),
    "is_not_supported": ("不支持", "is not supported"),
    "train_plain_lora": ("请训练不带它的普通 LoRA", "train plain LoRA without it"),
    "safetensors_cut": ("不是完整的 safetensors 文件", "is no whole safetensors file"),
    "copy_again_or_train": ("请重新复制，或重新训练", "copy it again, or train anew"),
    "holds_no_tensor": ("里没有张量", "holds no tensor"),
    "train_anew_or_remove": ("请重新训练适配器，或删除它", "train the adapter anew, or remove it"),
    "is_missing": ("缺失", "is missing"),
    "larger_than_adapters": ("比任何适配器都大", "is larger than any adapter"),
    "put_adapter_or_remove": ("请放一个适配器，或删除它", "put an adapter here, or remove it"),
    "make_readable_file": ("请让它成为可读的文件", "make it a readable file"),
    "write_anew_with_peft": ("请用 PEFT 重新写", "write it anew with PEFT"),
    "module_not_supported": ("属于不支持的模块", "is of a module that is not supported"),
    "has_no_shape": ("没有形状", "has no shape"),
    "has_half_its_matrices": ("只有一半的矩阵", "has only half of its matrices"),
    "train_it_anew": ("请重新训练", "train it anew"),
    # tasks/chat_tasks.py
    "memory_needs_it": ("缺失，而记忆需要它", "is missing, and memory needs it"),
    "add_task": ("请加上任务 {remember}", "add the task {remember}"),
    "does_not_suit_memory": ("不适合记忆", "does not suit memory"),
    "chat_needs_it": ("缺失，而 /chat 需要它", "is missing, and /chat needs it"),
    "add_task_named": ("请加上任务 {name}", "add the task {name}"),
    "does_not_suit_chat": ("不适合 /chat", "does not suit /chat"),
    "write_kind": ("请写 `kind: {kind}`", "write `kind: {kind}`"),
    "do_not_suit_chat": ("不适合 /chat", "do not suit /chat"),
    "use_only_these": ("只能用 {allowed}", "use only {allowed}"),
    # tasks/loader.py
    "task_name_invalid": ("不能作任务的名称", "is not a valid task name"),
    "task_name_form": ("请用 a-z、0-9 和 _，以字母开头", "use a-z, 0-9 and _, beginning with a letter"),
    "plain_already": ("用于对话提示词，而这个已经是普通的", "is for chat prompts, and this one is plain already"),
    "remove_it": ("请删除它", "remove it"),
    "filled_for_chat_only": ("只为任务 `chat` 填入", "is filled for the task `chat` only"),
    "rename_input": ("请给这个输入改名", "rename the input"),
    "only_route_labels": ("只有任务 `route` 的标签能代表任务", "only labels of the task `route` stand for tasks"),
    "write_kind_label": ("请写 `kind: label`", "write `kind: label`"),
    "use_only_text": ("只能用 text", "use only text"),
    "is_empty": ("是空的", "is empty"),
    "write_care_reply": ("请写 /chat 该回答什么，见 docs/care.md", "write what /chat is to answer, see docs/care.md"),
    "only_labels_calibrate": ("只有标签任务有可校准的概率", "only label tasks have probabilities to calibrate"),
    "is_not_list": ("不是列表", "is not a list"),
    "case_form": ("每个用例写一条 `- inputs: {{...}}`", "write one `- inputs: {{...}}` entry a case"),
    "front_matter_not_closed": ("缺失或没有结束", "is missing or not closed"),
    "front_matter_form": ("请以一行 `---` 开始，以另一行结束", "begin with a `---` line and close it with another"),
    "write_prompt_below": ("请在前言下面写提示词", "write the prompt below the front matter"),
    "text_before_roles": ("第一个角色行之前有文字", "has text before its first role line"),
    "move_under_role": ("请把它移到 `system:` 或 `user:` 行之下", "move it under a `system:` or `user:` line"),
    "ends_with": ("以 `{roles}:` 结束", "ends with `{roles}:`"),
    "end_with_user_message": ("请以 `user:` 消息结束", "end with a `user:` message"),
    "begins_like_role": ("以 `{written}` 开头，它不是角色", "begins with `{written}`, which is no role"),
    "write_role_or_blank": (
        "请写 `{role}:`；如果它是正文，请在它前面写一个空格",
        "write `{role}:`, or put a blank before it if it is part of a text",
    ),
    "late_system_line": ("有一行 `system:` 不在最前面", "has a `system:` line that is not the first"),
    "keep_one_at_top": ("请只留一个，放在最前面", "keep one, at the top"),
    "is_not_declared": ("没有声明", "is not declared"),
    "add_under_inputs": (
        "请在 inputs 下加上 `{name}: {{max_tokens: ...}}`",
        "add `{name}: {{max_tokens: ...}}` under inputs",
    ),
    "write_the_input": (
        "请把 ${name} 写成 ${declared}，或把输入 {declared} 改名为 {name}",
        "write ${declared} instead of ${name}, or rename the input {declared} to {name}",
    ),
    "is_never_used": ("从没用到", "is never used"),
    "write_or_remove_input": ("请在正文里写 ${name}，或删除这个输入", "write ${name} in the body, or remove the input"),
    "see_docs_task_folder": ("见 docs/task-folder.md", "see docs/task-folder.md"),
    "do_not_match_task": ("与任务的不符", "do not match the task's"),
    "give_exactly": ("请正好给出：{wanted}", "give exactly: {wanted}"),
    "not_an_answer": ("{label!r} 不是这个任务的回答{label2}", "{label!r} is not an answer of this task{label2}"),
    "use_one_of": ("请用 {allowed} 之一", "use one of {allowed}"),
    "remove_them": ("请删除它们", "remove them"),
    "other_kind": ("这是 {kind} 任务", "this is a {kind} task"),
    "create_it": ("请建立它，见 docs/task-folder.md", "create it, see docs/task-folder.md"),
    "is_not_utf8": ("不是 UTF-8（{reason}）", "is not UTF-8 ({reason})"),
    "save_as_utf8": ("请存成 UTF-8", "save it as UTF-8"),
    "dollar_names_no_variable": ("有 `$` 而后面没有变量名", "has a `$` that names no variable"),
    "write_two_dollars": ("美元符号请写成 `$$`", "write `$$` for a dollar sign"),
    "use_other_checks": ("请改用 any、all 或 none", "use any, all or none instead"),
    "expects_nothing": ("没有写期望什么", "expects nothing"),
    # tasks/routes.py
    "picks_no_task": ("不选任务", "picks no task"),
    "do_not_suit_route": ("不适合 /v1/route", "do not suit /v1/route"),
    "remove_or_add_label": (
        "请删除它，或为不属于别的任务的文字加一个标签",
        "remove it, or add a label for what fits no other task",
    ),
    "stands_for_no_task": ("代表 {target!r}，而它不是别的任务", "stands for {target!r}, which is no other task"),
    "stands_for_inner_task": (
        "代表 {target!r}，而它不单独回答",
        "stands for {target!r}, which answers nobody by itself",
    ),
    "stands_for_more_inputs": (
        "代表 {target!r}，而它要 {needs}，不只是文字",
        "stands for {target!r}, which takes {needs} and not just text",
    ),
    # tasks/versions.py
    "holds_no_task": ("里没有任务", "holds no task"),
    "add_folder_with_prompt": ("请加上带 prompt.md 的文件夹", "add a folder with a prompt.md"),
    "does_not_exist": ("不存在", "does not exist"),
    "set_prompts_folder": ("请把 QAIO_PROMPTS 设为任务所在的文件夹", "set QAIO_PROMPTS to the folder of the tasks"),
    # telemetry/audit.py
    "audit_path_form": (
        "QAIO_AUDIT_FILE={path!r}：请写绝对路径，从哪里启动都一样",
        "QAIO_AUDIT_FILE={path!r}: write an absolute path, the same wherever it is started",
    ),
    "audit_unwritable": (
        "QAIO_AUDIT_FILE={path!r}：无法写入：{strerror}",
        "QAIO_AUDIT_FILE={path!r}: cannot be written: {strerror}",
    ),
    # telemetry/tracing.py
    "otel_endpoint_form": (
        "{setting}：请写完整地址，例如 http://localhost:4318（OTLP 走 HTTP）",
        "{setting}: write a whole address, as http://localhost:4318 (OTLP over HTTP)",
    ),
    "needs_opentelemetry": (
        "{setting} 需要 OpenTelemetry，而它没有装全：pip install -r requirements-otel.txt",
        "{setting} needs OpenTelemetry, which is not wholly installed: pip install -r requirements-otel.txt",
    ),
    # tasks/adapter_files.py: fragments
    "save_safely": (
        "请用 PEFT 的 safe_serialization 保存为 {adapter_weights}",
        "save it with PEFT's safe_serialization, as {adapter_weights}",
    ),
    "two_files": (
        "适配器是两个文件，{adapter_config} 和 {adapter_weights}：请补上，或删除另一个",
        "an adapter is two files, {adapter_config} and {adapter_weights}: add it, or remove the other",
    ),
    "plain_lora": (
        "本服务运行普通的 LoRA（peft_type LORA，bias none）",
        "the service runs plain LoRA (peft_type LORA, bias none)",
    ),
    "target_modules": (
        "只能以 q_proj、k_proj、v_proj、o_proj、gate_proj、up_proj、down_proj 为目标",
        "target q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj only",
    ),
    # tasks/chat_tasks.py: fragments
    "declare_memories": (
        "请声明 `{memories}: {{max_tokens: 200, heading: ...}}`，见 docs/memory.md，或设 QAIO_MEMORY=0",
        "declare `{memories}: {{max_tokens: 200, heading: ...}}`, see docs/memory.md, or set QAIO_MEMORY=0",
    ),
    "write_remember": (
        "请写 `kind: list`、`strategy: greedy` 和唯一的输入 `text`",
        "write `kind: list`, `strategy: greedy` and the one input `text`",
    ),
    # tasks/loader.py: fragments
    "change_value": (
        "现在是 {value}；请改成上面要求的",
        "it is {value} now; change it to what the message asks",
    ),
    "bare_words": (
        'YAML 把 yes、no、on、off 这样的词读作真假值；请加引号（"{value}"）',
        'YAML reads bare words such as yes, no, on and off as booleans; put quotes around it ("{value}")',
    ),
    "put_quotes": (
        '请加引号（"{value}"）',
        'put quotes around it ("{value}")',
    ),
    "write_text": (
        "请在这里写文字",
        "write text here",
    ),
    "correct_spelling": (
        "请删除它，或改正拼写{meant}（最上层的键有 {model_fields}）",
        "remove it, or correct the spelling{meant} (top-level keys are {model_fields})",
    ),
    "add_key": (
        "请加上这个键",
        "add this key",
    ),
    "add_key_as": ("请加上这个键，如 `{example}`", "add this key, as in `{example}`"),
    "write_as": ("请写成这样：`{example}`", "write it as `{example}`"),
    "no_json_schema": (
        "不是回答能遵守的 JSON schema（{error}）",
        "is no JSON schema that answers can be held to ({error})",
    ),
    "not_for_labels": (
        "any、all、none、max_chars、fields 不用于标签任务",
        "any, all, none, max_chars, fields are not for label tasks",
    ),
    "use_checks": (
        "请改用 any、all、none 或 max_chars",
        "use any, all, none or max_chars instead",
    ),
    "give_a_check": (
        "请至少写 {checks} 之一",
        "give at least one of {checks}",
    ),
    # tasks/registry.py: fragments
    "make_readable": (
        "请让它的文件都可读",
        "make all of its files readable",
    ),
    # tasks/routes.py: fragments
    "add_task_to_label": (
        "请加上 `task:`，写 {takers} 之一",
        "add `task:` with one of {takers}",
    ),
    "add_text_task": (
        "请加一个唯一输入是 text 的任务",
        "add a task whose only input is text",
    ),
    "route_to_nothing": (
        "让 /v1/route 没有任务可运行",
        "leaves /v1/route without a task to run",
    ),
    # tasks/versions.py: fragments
    "readable_or_other": (
        "请让它可读，或把 QAIO_PROMPTS 设为别的",
        "make it readable, or set QAIO_PROMPTS to another",
    ),
    # model/lora.py: fragments
    "tuned_elsewhere": (
        "这个适配器是在另一个模型上教的（{base}，现在的是 {fingerprint}）",
        "the adapter was tuned on another checkpoint ({base}, this one is {fingerprint})",
    ),
    "trained_elsewhere": (
        "这个适配器是在 {named!r} 上训练的，而现在的模型是 {names!r}",
        "the adapter was trained on {named!r}, and this model is {names!r}",
    ),
    "remove_or_correct_base": (
        "请删除适配器；如果是同一个模型，请改正 base_model_name_or_path",
        "remove the adapter, or correct base_model_name_or_path if it is the same model",
    ),
    "layer_too_high": (
        "属于第 {layer} 层，而这个模型有 {num_hidden_layers} 层",
        "is of layer {layer}, and this model has {num_hidden_layers} layers",
    ),
    "adapter_shape": (
        "的形状是 {shape}，而秩 {rank} 在这个模型上应是 {wanted}",
        "has the shape {shape}, and rank {rank} on this model makes {wanted}",
    ),
    # service/codec.py: fragments
    "prompt_fills_context": (
        "有 {fixed} 个固定的 token，回答最多 {most} 个，占满了上下文的 {context} 个",
        "has {fixed} fixed tokens and up to {most} of answer, which fill the context of {context}",
    ),
    # serving/startup.py: fragments
    "host_unusable": (
        "QAIO_HOST={host}：不能在那里监听（{strerror}）；请把 QAIO_HOST 设为这台机器的地址",
        "QAIO_HOST={host}: nobody can listen there ({strerror}); set QAIO_HOST to an address of this machine",
    ),
    "port_in_use": (
        "QAIO_PORT={port}：另一个程序正在 {host} 的端口 {port} 上监听；请停掉它，或换一个端口",
        "QAIO_PORT={port}: another program listens on {host} port {port}; stop it, or set another",
    ),
    "port_below_1024": (
        "QAIO_PORT={port}：只有 root 能在那里监听；请把 QAIO_PORT 设为 1024 以上",
        "QAIO_PORT={port}: only root may listen there; set QAIO_PORT to 1024 or more",
    ),
    # strict_yaml.py
    "and_fix": ("{problem}；{fix}", "{problem}; {fix}"),
    # strict_yaml.py
    "no_yaml": ("不是 YAML（{problem}）", "is no YAML ({problem})"),
    "yaml_tab": ("有一个制表符（Tab），YAML 不允许写在那里", "has a tab where YAML allows none"),
    "write_spaces": ("请把它换成空格", "write spaces instead of it"),
    "correct_yaml": ("请改正那一行的 YAML", "correct the YAML at that line"),
    "key_given_twice": ("键 {key!r} 写了两次", "key {key!r} is given twice"),
    # tasks/task.py
    "list_alone_has_most": ("max_items 只用于 `kind: list`", "max_items is for `kind: list` only"),
    "remove_it_or_change_kind": ("请删除它，或改变 kind", "remove it or change the kind"),
    "json_has_schema": (
        "`kind: json` 和 `schema: schema.json` 要一起写",
        "`kind: json` and `schema: schema.json` belong together",
    ),
    "write_both_or_neither": ("请两个都写，或都不写", "write both or neither"),
    "label_alone_has_labels": (
        "labels、unknown 和 contextual 只用于 `kind: label`",
        "labels, unknown and contextual are for `kind: label` only",
    ),
    "remove_them_or_change_kind": ("请删除它们，或改变 kind", "remove them or change the kind"),
    "two_labels_needed": ("标签任务至少要两个标签", "a label task needs at least two labels"),
    "list_labels": ("请列在 output.labels 下", "list them under output.labels"),
    "label_not_told_apart": (
        "标签 {name!r} {why}，这样分不清是哪个回答",
        "label {name!r} {why}, so an answer could not be told apart",
    ),
    "listed_twice": ("列了两次", "is listed twice"),
    "begins_another": ("是 {other!r} 的开头", "is the beginning of {other!r}"),
    "rename_one": ("请给其中一个改名", "rename one"),
    "unknown_is_label": ("unknown.name {name!r} 也是标签", "unknown.name {name!r} is also a label"),
    "choose_another_name": ("请换一个名字", "choose another name"),
    "greedy_ignores": ("贪心解码不理会 {useless}", "greedy decoding ignores {useless}"),
    "remove_or_sample": ("请删除它，或写 `strategy: sample`", "remove it or use `strategy: sample`"),
    "input_name_taken": (
        "inputs.{name}：这个词在请求里另有含义",
        "inputs.{name}: requests say something else with that word",
    ),
    "sentiment_alone_unsure": (
        "inputs.{name}.unsure：只有输入 `sentiment` 有概率",
        "inputs.{name}.unsure: only the input `sentiment` has a probability",
    ),
    "memories_alone_have_heading": (
        "inputs.{name}：只有输入 `memories` 有 `heading`，它也必须有",
        "inputs.{name}: the input `memories` has a `heading`, and no other",
    ),
    "correct_that": ("请改正", "correct that"),
    "label_alone_is_plain": ("plain 只用于 `kind: label`", "plain is for `kind: label` only"),
    "labels_are_greedy": ("标签任务只用贪心解码", "a label task is decoded greedily"),
    "write_greedy": (
        "请写 `decoding: {{strategy: greedy, ...}}`",
        "write `decoding: {{strategy: greedy, ...}}`",
    ),
    # service/judging.py
    "case_expected": ("应为 {wanted}", "expected {wanted}"),
    "case_empty": ("回答是空的", "empty answer"),
    "case_cut": (
        "到上限被截断：请调大 max_new_tokens，或限制 schema",
        "cut at its limit: raise max_new_tokens, or bound the schema",
    ),
    "case_must_not": ("不应有 {words}", "must not contain {words}"),
    "case_lacks": ("缺少 {words}", "lacks {words}"),
    "case_none_of": ("一个也没有：{words}", "contains none of {words}"),
    "case_too_long": ("有 {count} 个字符，最多 {most} 个", "{count} characters, at most {most}"),
    # alerts/addresses.py
    "address_private": ("{address} 不是公网地址", "{address} is no public address"),
    "allow_network": ("如果确实要用它，请把它的网络写进 {setting}", "if that is meant, put its network into {setting}"),
    # alerts/bounded_pattern.py
    "pattern_at": ("{sign!r}（第 {place} 个字符）{problem}", "{sign!r} (character {place}) {problem}"),
    "pattern_fits_all": ("任何文字都符合", "fits every text"),
    "need_a_part": ("请让其中一部分必须出现", "make a part of it necessary"),
    "pattern_steps": (
        "在文字的一处可能要走 {steps} 步，最多 {most} 步",
        "could take {steps} steps at one place of a text, {most} are the most",
    ),
    "pattern_ways": ("可能的走法太多", "has too many ways through it"),
    "repeat_less": ("请让重复的部分少一些，或让它们重复得少一些", "let fewer parts repeat, or less often"),
    "no_regular_expression": ("不是正则表达式（{error}）", "is no regular expression ({error})"),
    "correct_it": ("请改正它", "correct it"),
    "no_partner": ("没有与它配对的", "has no partner"),
    "backslash_if_meant": (
        "如果就是指这个字符，请在它前面写反斜杠",
        "write a backslash before it if it is meant as a character",
    ),
    "nothing_to_repeat": ("前面没有可以重复的", "stands where nothing can be repeated"),
    "backslash_before": ("请在它前面写反斜杠", "write a backslash before it"),
    "pattern_deep": ("嵌套太深", "is nested too deep"),
    "write_flatter": ("请写得浅一些", "write it flatter"),
    "group_special": (
        "开始的组会看前后的文字、有名字或设置标志",
        "begins a group that looks around, has a name or sets flags",
    ),
    "group_form": ("请写 (...) 或 (?:...)", "write (...) or (?:...)"),
    "group_open": ("有一个 ( 没有闭合", "has a ( that is not closed"),
    "close_group": ("请写上 )", "write the )"),
    "class_open": ("有一个 [ 没有闭合", "has a [ that is not closed"),
    "close_class": ("请写上 ]", "write the ]"),
    "escape_unknown": ("不能写在 {found} 之前", "before {found} is not taken"),
    "the_end": ("结尾", "the end"),
    "escape_form": ("\\ 之后只能是 {known} 和标点", "after \\ only {known} and signs may stand"),
    "repeats_endlessly": ("没有限度地重复", "repeats without an end"),
    "say_how_often": ("请写明最多几次，如 {example}", "say how often at most, as {example}"),
    "repeats_twice": ("重复的是已经在重复的", "repeats what repeats already"),
    "write_one": ("请只写其中一个", "write one of them"),
    "times_unclear": ("没有写明有限的次数", "says no number of times with an end"),
    "times_form": ("请写 {{2}} 或 {{0,20}}", "write {{2}}, or {{0,20}}"),
    "times_wrong": ("重复得太多，或最多的次数比最少的还少", "repeats too often, or less than it must"),
    "least_and_most": ("请写 {{最少,最多}}，最多 {most} 次", "write {{least,most}}, {most} at most"),
    # alerts/channels.py
    "no_secret_in": ("{file} 里没有密钥（{error}）", "{file} holds no secret ({error})"),
    "write_secret": (
        "请写入 whsec_ 和 32 个随机字节的 base64：openssl rand -base64 32",
        "write whsec_ and 32 random bytes in base64 into it: openssl rand -base64 32",
    ),
    "needs_apprise": ("{kind} 需要 Apprise，而它没有安装", "{kind} needs Apprise, which is not installed"),
    "it_is_no_text": ("它不是文本", "it is not text"),
    "make_file_readable": ("请建立这个文件，让服务能读它", "make the file, readable for the service"),
    "not_one_line": ("{file} 里不是正好一行", "{file} does not hold one line"),
    "write_what_channel_needs": (
        "请写入这个渠道需要的，不写别的",
        "write what the channel needs into it, and nothing else",
    ),
    "slack_token": ("Slack 的令牌有三段", "a Slack token has three parts"),
    "slack_token_form": ("请写它的地址末尾的 T.../B.../...", "write T.../B.../... as its address ends"),
    "not_what_is_taken": ("{what} 不是 {schema} 接受的", "{what} is not what {schema} takes"),
    "copy_from_there": ("请从给出它的地方重新复制", "copy it again from where it was given out"),
    # alerts/rules.py
    "no_time": ("不是一段时间", "is no length of time"),
    "time_form": ("请写一个数和 s、m、h 或 d，如 10m", "write a number and s, m, h or d, as 10m"),
    "time_long": ("太长", "is too long"),
    "week_at_most": ("最多一周（7d）", "a week (7d) is the most"),
    "is_no_text": ("不是文字", "is no text"),
    "quote_pattern": ("请给它加引号", "put quotes around the pattern"),
    "says_nothing": ("什么也没有要求", "says nothing"),
    "give_bounds": ("请写 at_least、at_most 或两者", "give at_least, at_most or both"),
    "bounds_crossed": ("不可能成立：at_least 大于 at_most", "can never be: at_least is more than at_most"),
    "exchange_them": ("请把它们对调", "exchange them"),
    "fires_always": ("对每条文字都会报警", "would fire at every text"),
    "name_condition": ("请写一个条件", "name a condition"),
    "intent_twice": ("把 intent 的标签写了两次", "names labels of intent twice"),
    "keep_one_intent": ("请只留 intent，或只留 labels: intent", "keep intent, or labels: intent"),
    "rate_without_time": ("不可能成立：没有留给它的时间", "can never be: no time is left for it"),
    "write_within": ("请写 within: 1h", "write within: 1h"),
    "not_signed_here": ("有 secret_file，而 {kind} 在这里不签名", "has a secret_file, and {kind} is not signed here"),
    # alerts/rules_file.py
    "name_alerts_file": ("请让 QAIO_ALERTS 指向能读的文件", "name a readable file in QAIO_ALERTS"),
    "is_no_mapping": ("不是由键和值组成的", "is no mapping"),
    "alerts_top_keys": ("请在最上层写 `channels:` 和 `rules:`", "write `channels:` and `rules:` at the top"),
    "alerts_top": ("最上层有 channels 和 rules", "at the top there are channels and rules"),
    "key_unknown": ("没有这个键{meant}", "is not known{meant}"),
    "no_list_of": ("不是 1 到 {most} 项的列表", "is no list of 1 to {most} entries"),
    "list_form": ("请写 `{key}:`，在下面写 `- name: ...`", "write `{key}:` and `- name: ...` below"),
    "kind_unknown": ("没有 {kind} 这一种{meant}", "{kind} is none{meant}"),
    "write_one_of": ("请写 {names} 之一", "write one of {names}"),
    "write_some_of": ("请写 {names} 中的几个", "write some of {names}"),
    "there_before": ("前面已有 {name!r}", "{name!r} is there before"),
    "own_names": ("请让每个有自己的名字", "give each a name of its own"),
    "no_channel": ("没有渠道 {channel!r}{meant}", "there is no channel {channel!r}{meant}"),
    "never_fires": ("永远不会报警：{why}", "can never fire: {why}"),
    "change_or_remove": ("请改它，或删除它", "change it, or remove it"),
    "no_label_task_named": ("没有标签任务 {task!r}{meant}", "there is no label task {task!r}{meant}"),
    "never_answers": ("{task} 从不回答 {label!r}{meant}", "{task} never answers {label!r}{meant}"),
    "answered_where_unlikely": (
        "没有哪个标签可能时，{task} 才回答 {label!r}",
        "{label!r} is what {task} answers where no label is likely",
    ),
    "remove_probability": ("请删除这个概率", "remove the probability"),
    "rows_at_once": (
        "文件的行是一起来的，频率对它们没有意义",
        "rows of a file come all at once, so that a rate says nothing of them",
    ),
    "rows_not_asked": ("文件的行不问 {task}", "rows of a file are not asked for {task}"),
    "live_without_rating": (
        "只有文件的行有评分，实时来的没有",
        "only rows of a file have a rating, nothing that comes live",
    ),
    "batch_without_rating": (
        "只有文件的行有评分，批处理里的没有",
        "only rows of a file have a rating, nothing that comes in batches",
    ),
    "line_has_one_task": (
        "批处理的一行只有一个任务的回答，没有 {tasks} 几个的",
        "a line of a batch has the answer of one task, not of {tasks}",
    ),
    # alerts/webhook.py, channels.py
    "channel_answered": ("回应了 {status}{hint}", "answered {status}{hint}"),
    "redirects_not_followed": ("；不跟随跳转，请写新的地址", "; redirects are not followed, write the new address"),
    "channel_unreachable": ("连不上", "could not be reached"),
    "asked_without_tls": (
        "要经过公网，却没有 TLS：请写 https://",
        "is asked without TLS over public networks; write https://",
    ),
    "secret_bytes": ("有 {count} 字节，应有 24 到 64 字节", "has {count} bytes, and must have 24 to 64"),
    # cli/alert_commands.py
    "alerts_not_set": (
        "没有设置 QAIO_ALERTS：请写明规则和渠道的文件，见 docs/alerts.md",
        "QAIO_ALERTS is not set: name the file of rules and channels, see docs/alerts.md",
    ),
    "no_such_channel": (
        "没有渠道 {name!r}{meant}（有的是：{known}）",
        "there is no channel {name!r}{meant} (there are: {known})",
    ),
    "not_waiting": (
        "其中 {count} 条既不在等待，也没有被放弃：见 alerts list",
        "{count} of them neither wait nor are dead: see alerts list",
    ),
    # cli/feedback_alerts.py
    "alert_not_kept": (
        "关于 {place} 的报警无法保存（{error}）：请修好 QAIO_ALERTS_OUTBOX={outbox}，再用 --resume 继续",
        "the alert about {place} cannot be kept ({error}): mend QAIO_ALERTS_OUTBOX={outbox} and go on with --resume",
    ),
    # cli/feedback_crews.py
    "ray_or_url": (
        "--engine ray 和 --url：模型要么在集群里，要么在那个地址，请只用一个",
        "--engine ray and --url: the models are in the cluster or behind the URL; take one",
    ),
    "options_of_ray": (
        "--address、--actors 和 --actor-cpus 说的是 Ray 在哪里计算：请加上 --engine ray",
        "--address, --actors and --actor-cpus say where Ray computes: add --engine ray",
    ),
    "needs_ray": (
        "--engine ray 需要 Ray（{error}）：pip install -r requirements-ray.txt",
        "--engine ray needs Ray ({error}): pip install -r requirements-ray.txt",
    ),
    # desk/cluster.py
    "machine_has_no_model": (
        "集群里一台机器没有模型：{error}",
        "a machine of the cluster has no model: {error}",
    ),
    "address_form": (
        "--address {address}：请写集群第一台机器的 HOST:PORT，在集群的机器上也可以写 auto",
        "--address {address}: write HOST:PORT of the cluster's first machine, or auto on one of it",
    ),
    "nobody_at_address": (
        "--address {address} 没有回应（{error}）：它是第一台机器的地址吗？",
        "nobody answers at --address {address} ({error}): is it the first machine's?",
    ),
    "machine_differs": (
        "集群里一台机器的模型、提示词或版本不同：{identity}，而第一台是 {first}",
        (
            "a machine of the cluster has another model, other prompts or another version: {identity}, where the "
            "first had {first}"
        ),
    ),
    "cluster_at": ("{address} 的集群", "the cluster at {address}"),
    "ray_here": ("这台机器上的 Ray", "Ray on this machine"),
    "cannot_join": (
        "无法加入{where}（{error}）。这台机器必须是集群的一员：先 ray start --address HOST:PORT，再 --address auto",
        (
            "{where} cannot be joined ({error}). This machine must be one of the cluster's: ray start --address "
            "HOST:PORT, then --address auto"
        ),
    ),
    "cluster_room": (
        "集群的机器有 {cpus} 个 CPU：放得下 {room} 个各占 {actor_cpus} 个的 actor；请调小 --actors 或 --actor-cpus",
        (
            "the cluster's machines have {cpus} CPUs: room for {room} actors of {actor_cpus}; set --actors or "
            "--actor-cpus lower"
        ),
    ),
    "row_out_of_order": (
        "下一行是第 {done} 行，Ray 却交来第 {row} 行：请用 --resume 继续",
        "Ray handed over row {row} where {done} is next: use --resume",
    ),
    "cluster_broke": (
        "集群出错：{error}；做完的都已保存，请用 --resume 继续",
        "the cluster broke: {error}; what is done is kept, go on with --resume",
    ),
    # desk/places.py
    "stores_need_pyarrow": (
        "{file}：读对象存储需要 pyarrow：pip install -r requirements-feedback.txt",
        "{file}: object stores need pyarrow: pip install -r requirements-feedback.txt",
    ),
    "uri_unusable": ("{file}：不是能用的 URI（{error}）", "{file}: no URI that can be used ({error})"),
    "store_unknown": (
        "没有 {scheme}:// 这种存储；有的是 {known}，还有路径",
        "{scheme}:// is no store that is known; there are {known}, and paths",
    ),
    # model/sampling_defaults.py
    "sampling_no_json": (
        "{path} 不是 JSON（{error}）：请改正，或删除它，不用它",
        "{path} is not JSON ({error}): mend it, or delete it and do without",
    ),
    "sampling_no_object": (
        "{path} 不是 JSON 对象：请改正，或删除它，不用它",
        "{path} is no JSON object: mend it, or delete it and do without",
    ),
    "sampling_out_of_bounds": (
        "{path}：{name} 是 {value}，必须是 {least} 到 {most} 的数",
        "{path}: {name} is {value}, and must be a number from {least} to {most}",
    ),
    # postgres_link.py
    "needs_psycopg": (
        "QAIO_STATE_URL 需要 psycopg，而它没有安装：pip install -r requirements-postgres.txt",
        "QAIO_STATE_URL needs psycopg, which is not installed: pip install -r requirements-postgres.txt",
    ),
}
