"""What operators are told at the command line: by name, in Chinese and in English. In braces is what is filled in."""

from __future__ import annotations

TO_OPERATORS: dict[str, tuple[str, str]] = {
    # everywhere
    "meant": ("，是不是 {name}？", ", did you mean {name}?"),
    "further": ("{first}；{others}", "{first}; {others}"),
    "no_such_setting": (
        "{name}：没有这个设置{meant}（有的是：{known}）",
        "{name}: no such setting{meant} (known: {known})",
    ),
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
    # access/credentials.py
    "of_setting": ("{setting}：{error}", "{setting}: {error}"),
    # access/json_web_tokens.py
    "holds_private_key_verifying": (
        "里是私钥；校验要用公钥，私钥不能放在这里",
        "holds a private key; verifying takes the public one, and the other must not lie here",
    ),
    "holds_rsa_key_bits": (
        "里的 RSA 密钥只有 {key_size} 位，至少要 {least_rsa_bits} 位",
        "holds an RSA key of {key_size} bits; at least {least_rsa_bits} are needed",
    ),
    "holds_secret_bytes_hs": (
        "里的密钥只有 {count} 字节，HS256 至少要 {least_secret} 字节",
        "holds a secret of {count} bytes; HS256 needs {least_secret} at least",
    ),
    "holds_no_public_key": (
        "里没有 {algorithm} 用的公钥（PEM）（{name}）",
        "holds no public key (PEM) for {algorithm} ({name})",
    ),
    "holds_pem_or_ssh": (
        "里是 PEM 或 SSH 密钥；HS256 要用随机的密钥",
        "holds a PEM or SSH key; HS256 needs a random secret",
    ),
    # access/keys.py
    "is_empty_make_key": (
        "是空的；请用 `qwen-allinone keys new NAME` 生成密钥",
        "is empty; make a key with `qwen-allinone keys new NAME`",
    ),
    "is_no_name_for": (
        "{name!r} 不能作密钥的名称：最多 64 个 A-Z a-z 0-9 . _ -，以字母或数字开头",
        "{name!r} is no name for a key: up to 64 of A-Z a-z 0-9 . _ -, a letter or digit first",
    ),
    "not_utf8_text": ("不是 UTF-8 文本", "is not UTF-8 text"),
    "line_is_not_name": (
        "第 {number} 行：不是 `NAME: sha256:` 加 64 个十六进制数字",
        "line {number}: is not `NAME: sha256:` and 64 hex digits",
    ),
    "line_is_there_twice": ("第 {number} 行：{match} 出现了两次", "line {number}: {match} is there twice"),
    "has_key_already_remove": (
        "{name} 已有密钥；请先删除它，或换一个名称",
        "{name} has a key already; remove it first, or take another name",
    ),
    "has_no_key": ("{name} 没有密钥", "{name} has no key"),
    "cannot_be_read_of_path_strerror": ("{path}：无法读取：{strerror}", "{path}: cannot be read: {strerror}"),
    "of_file": ("{path}：{error}", "{path}: {error}"),
    "is_not_utf_text_of_path": ("{path}：不是 UTF-8 文本", "{path}: is not UTF-8 text"),
    "cannot_be_written_of_path_strerror": ("{path}：无法写入：{strerror}", "{path}: cannot be written: {strerror}"),
    # cli/commands.py
    "is_on_this_machine": (
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
    "is_not_there_nobody": (
        "{feedback_file} 不存在：还没有人更正过",
        "{feedback_file} is not there: nobody has given feedback yet",
    ),
    "nobody_has_given_feedback": (
        "最近 {feedback_days:g} 天没有人更正过 {task}",
        "nobody has given feedback on {task} in the last {feedback_days:g} days",
    ),
    # cli/feedback_command.py
    "name_one_file_or": (
        "请给出一个或几个文件，或用自带的例子：--sample",
        "name one file or more, or take the one that comes with the package: --sample",
    ),
    "without_can_be_one": (
        "--without {unknown}：只能是 {optional} 之一",
        "--without {unknown}: it can be one of {optional}",
    ),
    "there_is_no_row": ("表头下面没有一行", "there is no row below the header"),
    "cannot_be_made_name": (
        "无法建立 {folder}（{strerror}）；请用 --out 换一个",
        "{folder} cannot be made ({strerror}); name another with --out",
    ),
    # cli/key_commands.py
    "keys_file_not_set": (
        "没有设置 QAIO_API_KEYS_FILE：请写明保存密钥散列的文件",
        "QAIO_API_KEYS_FILE is not set: name the file that holds the hashes of the keys",
    ),
    # cli/labelled_commands.py
    "is_no_label_task": (
        "{name} 不是标签任务：没有标签可比",
        "{name} is no label task: there is nothing to compare with labels",
    ),
    "map_has_no_labels": ("--map {names}：{name} 没有标签可翻译", "--map {names}: {name} has no labels to translate"),
    "map_form": (
        "--map {names}：请写成 1={labels},0={labels2}",
        "--map {names}: write it as 1={labels},0={labels2}",
    ),
    "no_row_was_answered": ("没有一行得到回答", "no row was answered"),
    "cannot_be_written_make": (
        "{folder} 不可写：请让它可写，或用 QAIO_PROMPTS 在副本上做",
        "{folder} cannot be written: make it writable, or work on a copy with QAIO_PROMPTS",
    ),
    # cli/labelled_rows.py
    "is_not_utf_line": (
        "{file} 不是 UTF-8（第 {line} 行）；请存成 UTF-8，它可能是 GBK：{value}",
        "{file} is not UTF-8 (line {line}); save it as UTF-8, it may be GBK: {value}",
    ),
    "has_no_row_that": ("{file} 没有一行能用{why}", "{file} has no row that can be used{why}"),
    "is_utf_16": (
        "{file} 是 UTF-16；请存成 UTF-8，例如用：{value}",
        "{file} is UTF-16; save it as UTF-8, e.g. with: {value}",
    ),
    "line_problem": ("{file}：第 {number} 行：{header}", "{file}: line {number}: {header}"),
    "cannot_be_read_of_file_strerror": ("无法读取 {file}：{strerror}", "{file} cannot be read: {strerror}"),
    "is_not_utf_line_of_file_line_hint": (
        "{file} 不是 UTF-8（第 {line} 行）；请存成 UTF-8{hint}",
        "{file} is not UTF-8 (line {line}); save it as UTF-8{hint}",
    ),
    "line_is_not_utf": (
        "{file}：第 {line} 行不是 UTF-8，而第 {other_line} 行是；请全部存成 UTF-8",
        "{file}: line {line} is not UTF-8, but line {other_line} is; save all of it as UTF-8",
    ),
    # cli/prompt_commands.py
    "no_earlier_version_is": ("{root} 里没有更早的版本", "no earlier version is kept in {root}"),
    "not_reloaded_force_takes": (
        "没有换上新的；`--force` 可以强行换上",
        "not reloaded; `--force` takes it all the same",
    ),
    "prompts_unreadable": (
        "{filename}：{strerror}：请看 QAIO_PROMPTS 和 QAIO_PROMPTS_KEPT",
        "{filename}: {strerror}: see QAIO_PROMPTS and QAIO_PROMPTS_KEPT",
    ),
    # cli/result_files.py
    "cannot_be_written_of_file_strerror_fix": (
        "无法写入 {file}（{strerror}）；{fix}",
        "{file} cannot be written ({strerror}); {fix}",
    ),
    # cli/temperature.py
    "answered_rows_are_too": (
        "回答了的 {count} 行太少，不够拟合温度；请给 {fewest_rows} 行以上",
        "{count} answered rows are too few to fit a temperature to; give {fewest_rows} or more",
    ),
    # cli/terminal.py
    "holds_no_key_or": (
        "{file} 里没有密钥或令牌：必须是一行字母、数字和符号",
        "{file} holds no key or token: it must be one line of letters, digits and signs",
    ),
    "cannot_be_read_3": ("无法读取 {file}（{strerror}）", "{file} cannot be read ({strerror})"),
    # cli/tune_command.py
    "no_epoch_was_better": (
        "没有一轮比原来的模型好：什么也没写",
        "no epoch was better than the model as it is: nothing was written",
    ),
    "ended_before_anything_was": (
        "还没测量就结束了：什么也没写",
        "ended before anything was measured: nothing was written",
    ),
    "answers_with_only_labels": (
        "{name} 的回答是 {kind}：只能教标签和文字",
        "{name} answers with a {kind}: only labels and texts can be taught",
    ),
    "has_adapter_already_replace": (
        "{folder} 已有适配器：--replace 覆盖它，--out 把新的放到别处",
        "{folder} has an adapter already: --replace writes over it, --out puts the new one elsewhere",
    ),
    "cannot_be_written_make_of_folder": (
        "{folder} 不可写：请让它可写，或用 --out 换一个",
        "{folder} cannot be written: make it writable, or name another with --out",
    ),
    "has_rows_learn_from": (
        "{data} 除留出的 {count2} 行外只有 {count} 行可学：太少",
        "{data} has {count} rows to learn from beside {count2} held out: too few",
    ),
    "no_row_can_be": ("没有一行能学或能测", "no row can be learnt from or measured on"),
    # cli/tune_prompt_command.py
    "only_chat_prompt_questions": (
        "{name}：只有一问一答的对话提示词能换写法",
        "{name}: only a chat prompt of questions and answers can be written in other ways",
    ),
    "has_adapter_which_was": (
        "{name} 有适配器，它是按原来的提示词教的：请去掉其中一个",
        "{name} has an adapter, which was taught the prompt as it is: remove one of the two",
    ),
    "no_row_can_be_again": ("没有一行能问", "no row can be asked"),
    "has_rows_that_can": (
        "{data} 有 {count} 行能用，至少要 {fewest} 行",
        "{data} has {count} rows that can be used, and {fewest} at least are needed",
    ),
    "instruction_write_text_which": (
        "--instruction：文字里不能有以 system:、user: 或 assistant: 开头的行",
        "--instruction: write a text of which no line begins with system:, user: or assistant:",
    ),
    "cannot_be_written_make_of_file_strerror": (
        "无法写入 {file}（{strerror}）；请让文件夹可写",
        "{file} cannot be written ({strerror}); make the folder writable",
    ),
    # desk/asking.py
    "given_up": ("放弃了", "given up"),
    "service_at_url_refuses": (
        "--url 的服务拒绝（{status}）：{told}",
        "the service at --url refuses ({status}): {told}",
    ),
    "task_with_labels_is": (
        "需要任务 {sentiment!r}，带标签 {positive} 和 {negative}",
        "the task {sentiment!r} with the labels {positive} and {negative} is needed",
    ),
    "service_at_url_does": (
        "--url 的服务没有应答（{name}：{error}）",
        "the service at --url does not answer ({name}: {error})",
    ),
    "what_answers_at_url": (
        "--url 那里不是这样的服务：它不列出任务",
        "what answers at --url is no such service: it does not tell its tasks",
    ),
    "model_does_not_answer": ("模型没有回答（{value}）", "the model does not answer ({value})"),
    # desk/journal.py
    "journal_cannot_be_written": (
        "无法写入 {path}（{strerror}）。已完成并保存 {done} 行：请修好，再用 --resume 继续",
        "{path} cannot be written ({strerror}). {done} rows are done and kept: mend it and go on with --resume",
    ),
    "holds_run_already_rows": (
        "{parent} 里已有一次运行，完成了 {done} 行：请用 --resume 继续，或用 --out 换一个文件夹",
        "{parent} holds a run already, {done} rows are done: go on with --resume, or name another folder with --out",
    ),
    "holds_run_with_other": (
        "{parent} 里那次运行的 {changed} 不同：请用 --out 换一个文件夹",
        "{parent} holds a run with other {changed}: name another folder with --out",
    ),
    "another_run_is_at": (
        "{parent}：另一次运行正在用它，请等它结束",
        "{parent}: another run is at work there; wait for it",
    ),
    # desk/outputs.py
    "results_cannot_be_written": (
        "无法写入 {folder}（{strerror}）。{done} 个回答都在 {name} 里：请腾出地方，再用 --resume 继续",
        (
            "{folder} cannot be written ({strerror}). All {done} answers are kept in {name}: make room and go on "
            "with --resume"
        ),
    ),
    "file_has_changed_since": (
        "有文件在打标签之后变了：请用 --out 换一个文件夹",
        "a file has changed since it was labelled: name another folder with --out",
    ),
    # desk/sources.py
    "cannot_be_read_of_path_value": ("无法读取 {path}：{value}", "{path} cannot be read: {value}"),
    "name_as_what_is": ("{path}：请按它的格式命名：{kinds}", "{path}: name it as what it is: {kinds}"),
    "is_empty_there_is": ("{path} 是空的：没有一行", "{path} is empty: there is no row in it"),
    "has_columns_at_most": (
        "{path} 有 {count} 列，最多 {most_columns} 列：它真是这种文件吗？",
        "{path} has {count} columns, {most_columns} at most: is it what it says?",
    ),
    "line_no_valid_csv": (
        "{path}：第 {line} 行：不是合法的 CSV（{header}）",
        "{path}: line {line}: no valid CSV ({header})",
    ),
    "line_is_not_utf_of_path_line_why": (
        "{path}：第 {line} 行不是 UTF-8{why}；请全部存成 UTF-8",
        "{path}: line {line} is not UTF-8{why}; save all of it as UTF-8",
    ),
    "excel_needs_openpyxl": ("{path}：读 Excel 需要 openpyxl：{extra}", "{path}: Excel needs openpyxl: {extra}"),
    "parquet_needs_pyarrow": ("{path}：读 Parquet 需要 pyarrow：{extra}", "{path}: Parquet needs pyarrow: {extra}"),
    "is_no_parquet_file": (
        "{path} 不是能读的 Parquet 文件（{error}）",
        "{path} is no Parquet file that can be read ({error})",
    ),
    "is_no_excel_file": (
        "{path} 不是能读的 Excel 文件（{name}：{error}）",
        "{path} is no Excel file that can be read ({name}: {error})",
    ),
    # desk/table.py
    "has_no_column_as": (
        "{path} 没有 {path2} 里的列 {text!r}；它有：{columns}。请用 --text 指明另一列，或单独处理这个文件",
        (
            "{path} has no column {text!r} as {path2} has; it has: {columns}. Name another with --text, or label "
            "this file by itself"
        ),
    ),
    "no_column_there_are": (
        "没有列 {name!r}{name2}；有的是：{there}。请用 {flag} 指明",
        "no column {name!r}{name2}; there are: {there}. Name yours with {flag}",
    ),
    # engine/tuning.py
    "needs_more": ("{needs}（{error}）", "{needs} ({error})"),
    "cannot_be_written_name_of_folder_strerror": (
        "无法写入 {folder}（{strerror}）：请用 --out 换一个",
        "{folder} cannot be written ({strerror}): name another with --out",
    ),
    # model/checkpoint.py
    "tokenizer_in_has_neither": (
        "{folder} 里的分词器既没有 <|endoftext|> 也没有 <|im_end|>",
        "the tokenizer in {folder} has neither <|endoftext|> nor <|im_end|>",
    ),
    "model_folder_does_not": ("模型文件夹 {folder} 不存在", "the model folder {folder} does not exist"),
    # model/config.py
    "describes_this_service_runs": (
        "{file} 写的是 {value}；本服务能运行 {qwen2} 和 {qwen3}",
        "{file} describes {value}; this service runs {qwen2} and {qwen3}",
    ),
    "holds_no_config_json": (
        "{folder} 里没有 config.json，不是模型文件夹",
        "{folder} holds no config.json, so it is no model folder",
    ),
    "cannot_be_read_of_file_error": ("无法读取 {file}（{error}）", "{file} cannot be read ({error})"),
    "of_key": ("{file}：{key}：{first}", "{file}: {key}: {first}"),
    "cannot_be_understood": ("看不懂 {file}（{error}）", "{file} cannot be understood ({error})"),
    # model/hub.py
    "is_neither_folder_nor": (
        "{name!r} 既不是文件夹，也不是合法的 hub 名称",
        "{name!r} is neither a folder nor a valid hub id",
    ),
    "was_not_what_hub": (
        "{path} 与 hub 上的不同，已删除：请再运行同样的命令",
        "{path} was not what the hub has and was removed: run the same command again",
    ),
    "hub_does_not_give": (
        "hub 不提供 {name!r} 的版本 {revision!r}（{error}）",
        "the hub does not give {name!r} at revision {revision!r} ({error})",
    ),
    "offline_and_not_cached": (
        "设置了 HF_HUB_OFFLINE，而 {name} 不在（或不全在）hub 的缓存里",
        "HF_HUB_OFFLINE is set and {name} is not (or only partly) in the hub's cache",
    ),
    "hub_out_of_reach": ("连不上 hub，而且 {missing}（{error}）", "the hub is out of reach and {missing} ({error})"),
    "downloading_failed": ("下载 {name} 失败（{name2}：{error}）", "downloading {name} failed ({name2}: {error})"),
    # model/lora.py
    "has_changed_since_start": ("在启动之后变了", "has changed since the start"),
    "start_or_reload_service": ("请重新启动或重新加载服务", "start or reload the service again"),
    "tune_on_this_one": ("请在这个模型上教它，或删除它", "tune it on this one, or remove it"),
    "cannot_be_read_of_error": ("无法读取（{error}）", "cannot be read ({error})"),
    "copy_again": ("请重新复制", "copy it again"),
    "holds_kind": ("里是 {dtype}", "holds {dtype}"),
    "save_adapter_as_floats": ("请把适配器存成浮点数", "save the adapter as floats"),
    "holds_numbers_that_are": ("里有不是有限数的值", "holds numbers that are not finite"),
    "train_adapter_anew": ("请重新训练适配器", "train the adapter anew"),
    "take_adapter_this_model": ("请用这个模型的适配器", "take an adapter of this model"),
    "take_adapter_this_model_again": (
        "请用这个模型的适配器，和它自己的配置",
        "take an adapter of this model, and its own config",
    ),
    # model/tokenizer.py
    "checkpoint_has_no_chat": (
        "这个模型没有对话模板，而对话任务需要它",
        "the checkpoint has no chat template, which chat tasks need",
    ),
    "cannot_be_read_of_config_error": ("无法读取 {config}（{error}）", "{config} cannot be read ({error})"),
    "checkpoint_s_chat_template": (
        "无法读取模型的对话模板（{error}）",
        "the checkpoint's chat template cannot be read ({error})",
    ),
    "cannot_be_read_of_folder_error": ("无法读取 {folder}（{error}）", "{folder} cannot be read ({error})"),
    "checkpoint_s_chat_template_of_error": (
        "无法套用模型的对话模板（{error}）",
        "the checkpoint's chat template cannot be rendered ({error})",
    ),
    # model/weights.py
    "holds_no": ("{folder} 里没有 {single}", "{folder} holds no {single}"),
    "is_pickle_which_can": (
        "{pickled} 是 pickle，它能运行代码；这里只读 safetensors 文件",
        "{pickled} is a pickle, which can run code; only safetensors files are loaded",
    ),
    "names_something_that_is": (
        "{index} 写的不是它旁边的 safetensors 文件",
        "{index} names something that is no safetensors file beside it",
    ),
    "cannot_be_read_of_index_error": ("无法读取 {index}（{error}）", "{index} cannot be read ({error})"),
    "weights_lack_tensor": ("权重里缺少张量 {name}", "the weights lack the tensor {name}"),
    "tensor_holds_quantized_weights": (
        "张量 {name} 的类型是 {kind}；不支持量化的权重",
        "the tensor {name} holds {kind}; quantized weights are not supported",
    ),
    "tensor_has_shape_but": (
        "张量 {name} 的形状是 {found}，而 config.json 要求 {shape}",
        "the tensor {name} has the shape {found}, but config.json calls for {shape}",
    ),
    "is_truncated_damaged_or": (
        "{file} 被截断、损坏或缺失（{error}）",
        "{file} is truncated, damaged or missing ({error})",
    ),
    # patience.py
    "url_write_as_http": ("--url：请写成 http://HOST:PORT", "--url: write it as http://HOST:PORT"),
    # service/codec.py
    "shorten_or_raise": ("请缩短它，或调大 QAIO_CONTEXT", "shorten it or raise QAIO_CONTEXT"),
    # service/fitted_task.py
    "choose_other_label_names": ("请换别的标签名", "choose other label names"),
    # tasks/adapter_files.py
    "is_pickle_which_can_again": ("是 pickle，它能运行代码", "is a pickle, which can run code"),
    "is_not_supported": ("不支持", "is not supported"),
    "train_plain_lora_without": ("请训练不带它的普通 LoRA", "train plain LoRA without it"),
    "is_no_whole_safetensors": ("不是完整的 safetensors 文件", "is no whole safetensors file"),
    "copy_again_or_train": ("请重新复制，或重新训练", "copy it again, or train anew"),
    "holds_no_tensor": ("里没有张量", "holds no tensor"),
    "train_adapter_anew_or": ("请重新训练适配器，或删除它", "train the adapter anew, or remove it"),
    "is_missing": ("缺失", "is missing"),
    "is_larger_than_any": ("比任何适配器都大", "is larger than any adapter"),
    "put_adapter_here_or": ("请放一个适配器，或删除它", "put an adapter here, or remove it"),
    "cannot_be_read_of_strerror": ("无法读取（{strerror}）", "cannot be read ({strerror})"),
    "make_readable_file": ("请让它成为可读的文件", "make it a readable file"),
    "write_anew_with_peft": ("请用 PEFT 重新写", "write it anew with PEFT"),
    "module_not_supported": ("属于不支持的模块", "is of a module that is not supported"),
    "has_no_shape": ("没有形状", "has no shape"),
    "has_half_its_matrices": ("只有一半的矩阵", "has only half of its matrices"),
    "train_it_anew": ("请重新训练", "train it anew"),
    # tasks/chat_tasks.py
    "is_missing_memory_needs": ("缺失，而记忆需要它", "is missing, and memory needs it"),
    "add_task": ("请加上任务 {remember}", "add the task {remember}"),
    "does_not_suit_memory": ("不适合记忆", "does not suit memory"),
    "is_missing_chat_needs": ("缺失，而 /chat 需要它", "is missing, and /chat needs it"),
    "add_task_of_name": ("请加上任务 {name}", "add the task {name}"),
    "does_not_suit_chat": ("不适合 /chat", "does not suit /chat"),
    "write_kind": ("请写 `kind: {kind}`", "write `kind: {kind}`"),
    "do_not_suit_chat": ("不适合 /chat", "do not suit /chat"),
    "use_only_these": ("只能用 {allowed}", "use only {allowed}"),
    # tasks/loader.py
    "is_not_valid_task": ("不能作任务的名称", "is not a valid task name"),
    "task_name_form": ("请用 a-z、0-9 和 _，以字母开头", "use a-z, 0-9 and _, beginning with a letter"),
    "is_for_chat_prompts": ("用于对话提示词，而这个已经是普通的", "is for chat prompts, and this one is plain already"),
    "remove_it": ("请删除它", "remove it"),
    "is_filled_for_task": ("只为任务 `chat` 填入", "is filled for the task `chat` only"),
    "rename_input": ("请给这个输入改名", "rename the input"),
    "only_labels_task_route": ("只有任务 `route` 的标签能代表任务", "only labels of the task `route` stand for tasks"),
    "write_kind_label": ("请写 `kind: label`", "write `kind: label`"),
    "use_only_text": ("只能用 text", "use only text"),
    "is_empty": ("是空的", "is empty"),
    "write_what_chat_is": ("请写 /chat 该回答什么，见 docs/care.md", "write what /chat is to answer, see docs/care.md"),
    "only_label_tasks_have": ("只有标签任务有可校准的概率", "only label tasks have probabilities to calibrate"),
    "is_not_list": ("不是列表", "is not a list"),
    "write_one_inputs_entry": ("每个用例写一条 `- inputs: {{...}}`", "write one `- inputs: {{...}}` entry a case"),
    "is_missing_or_not": ("缺失或没有结束", "is missing or not closed"),
    "begin_with_line_close": ("请以一行 `---` 开始，以另一行结束", "begin with a `---` line and close it with another"),
    "write_prompt_below_front": ("请在前言下面写提示词", "write the prompt below the front matter"),
    "has_text_before_its": ("第一个角色行之前有文字", "has text before its first role line"),
    "move_under_system_or": ("请把它移到 `system:` 或 `user:` 行之下", "move it under a `system:` or `user:` line"),
    "ends_with": ("以 `{roles}:` 结束", "ends with `{roles}:`"),
    "end_with_user_message": ("请以 `user:` 消息结束", "end with a `user:` message"),
    "late_system_line": ("有一行 `system:` 不在最前面", "has a `system:` line that is not the first"),
    "keep_one_at_top": ("请只留一个，放在最前面", "keep one, at the top"),
    "is_not_declared": ("没有声明", "is not declared"),
    "add_under_inputs": (
        "请在 inputs 下加上 `{name}: {{max_tokens: ...}}`",
        "add `{name}: {{max_tokens: ...}}` under inputs",
    ),
    "is_never_used": ("从没用到", "is never used"),
    "write_in_body_or": ("请在正文里写 ${name}，或删除这个输入", "write ${name} in the body, or remove the input"),
    "see_docs_task_folder": ("见 docs/task-folder.md", "see docs/task-folder.md"),
    "do_not_match_task": ("与任务的不符", "do not match the task's"),
    "give_exactly": ("请正好给出：{wanted}", "give exactly: {wanted}"),
    "is_not_answer_this": ("{label!r} 不是这个任务的回答{label2}", "{label!r} is not an answer of this task{label2}"),
    "use_one_of": ("请用 {allowed} 之一", "use one of {allowed}"),
    "remove_them": ("请删除它们", "remove them"),
    "this_is_another_kind": ("这是 {kind} 任务", "this is a {kind} task"),
    "create_see_docs_task": ("请建立它，见 docs/task-folder.md", "create it, see docs/task-folder.md"),
    "is_not_utf8": ("不是 UTF-8（{reason}）", "is not UTF-8 ({reason})"),
    "save_as_utf8": ("请存成 UTF-8", "save it as UTF-8"),
    "correct_yaml_at_that": ("请改正那一行的 YAML", "correct the YAML at that line"),
    "dollar_names_no_variable": ("有 `$` 而后面没有变量名", "has a `$` that names no variable"),
    "write_for_dollar_sign": ("美元符号请写成 `$$`", "write `$$` for a dollar sign"),
    "use_any_all_or": ("请改用 any、all 或 none", "use any, all or none instead"),
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
    "set_folder_tasks": ("请把 QAIO_PROMPTS 设为任务所在的文件夹", "set QAIO_PROMPTS to the folder of the tasks"),
    # telemetry/audit.py
    "write_absolute_path_same": (
        "QAIO_AUDIT_FILE={path!r}：请写绝对路径，从哪里启动都一样",
        "QAIO_AUDIT_FILE={path!r}: write an absolute path, the same wherever it is started",
    ),
    "cannot_be_written_3": (
        "QAIO_AUDIT_FILE={path!r}：无法写入：{strerror}",
        "QAIO_AUDIT_FILE={path!r}: cannot be written: {strerror}",
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
}
