config = {
    "sign_messages": False,
    "ssldir": "/etc/pki/fedmsg",
    "certnames": {"shell.app01": "shell-app01"},
}
