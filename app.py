from qwen_allinone.bootstrap import build_app

app = build_app()
