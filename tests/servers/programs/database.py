"""Publish rows of SQLAlchemy, and an object with `__json__`."""

import fedmsg_relay
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Package(Base):
    __tablename__ = "package"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    builds: Mapped[list["Build"]] = relationship(back_populates="package")


class Build(Base):
    __tablename__ = "build"
    id: Mapped[int] = mapped_column(primary_key=True)
    release: Mapped[str]
    package_id: Mapped[int] = mapped_column(ForeignKey("package.id"))
    package: Mapped[Package] = relationship(back_populates="builds")


class Person:
    def __json__(self):
        return {"name": "ralph"}


engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Package(id=7, name="guake", builds=[Build(id=1, release="1.f41")]))
    session.commit()
    package = session.get(Package, 7)
    fedmsg_relay.publish("t", {"n": 1, "package": package, "by": Person()}, "m")
