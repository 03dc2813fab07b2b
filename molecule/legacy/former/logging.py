bare_format = {
    "datefmt": "%Y-%m-%d %H:%M:%S",
    "format": "[%(asctime)s][%(name)10s %(levelname)7s] %(message)s",
}

config = {
    "logging": {
        "version": 1,
        "formatters": {"bare": bare_format},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "bare",
                "level": "INFO",
                "stream": "ext://sys.stdout",
            },
            "mailer": {
                "class": "logging.handlers.SMTPHandler",
                "mailhost": "localhost",
                "fromaddr": "fedmsg@example.org",
                "toaddrs": ["admin@example.org"],
                "subject": "fedmsg error",
                "level": "ERROR",
            },
        },
        "loggers": {
            "fedmsg": {"level": "INFO", "propagate": False, "handlers": ["console"]},
            "moksha": {"level": "INFO", "propagate": False, "handlers": ["console"]},
            "bodhi": {"level": "DEBUG", "propagate": False, "handlers": ["mailer"]},
        },
    },
}
